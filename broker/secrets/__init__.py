"""Secret sources: where the values behind references come from (Vault, OpenBao, embedded)."""
