"""The admin page and REST API: where people see held calls and vote. Nothing here decides."""
