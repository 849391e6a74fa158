"""`keybroker doctor`: looks everything over; says of each fault how to mend it. Changes nothing.

house    the workspace, for who runs Keybroker: files, policy, ledger, vault, ports, clock
client   an agent's environment, for who starts agents: no workspace is needed
"""

from __future__ import annotations

from keybroker.doctor.client import examine_client
from keybroker.doctor.finding import Finding
from keybroker.doctor.house import examine

__all__ = ["Finding", "examine", "examine_client"]
