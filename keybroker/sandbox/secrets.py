"""Where programs keep what opens other doors: hidden in the sandbox unless asked for. A table.

It cannot be whole. Whoever needs certainty hides the home and names what is needed.
"""

from __future__ import annotations

HOME = (
    # keys and tokens of tools
    ".ssh", ".gnupg", ".aws", ".azure", ".oci", ".kube", ".docker", ".fly", ".s3cfg", ".boto",
    ".config/gcloud", ".config/gh", ".config/hub", ".config/glab-cli", ".config/doctl",
    ".config/hcloud", ".config/rclone", ".config/heroku", ".config/containers", ".config/sops",
    ".config/age", ".terraform.d", ".terraformrc", ".vault-token", ".bao-token", ".netrc",
    ".git-credentials", ".config/git/credentials", ".npmrc", ".yarnrc.yml", ".pypirc",
    ".config/pip/pip.conf", ".pip/pip.conf", ".cargo/credentials", ".cargo/credentials.toml",
    ".gem/credentials", ".m2/settings.xml", ".gradle/gradle.properties", ".pgpass", ".my.cnf",
    ".mylogin.cnf",
    # safes and browsers
    ".password-store", ".local/share/keyrings", ".local/share/kwalletd", ".config/op",
    ".1password", ".config/1Password", ".mozilla", ".thunderbird", ".config/google-chrome",
    ".config/chromium", ".config/BraveSoftware", ".config/microsoft-edge", ".pki",
    # sockets of programs that start others
    ".colima", ".lima", ".rd", ".orbstack", ".minikube",
    # what was typed
    ".bash_history", ".zsh_history", ".local/share/fish/fish_history", ".python_history",
    ".node_repl_history", ".psql_history", ".mysql_history", ".sqlite_history",
    # the screen
    ".Xauthority", ".ICEauthority",
)  # fmt: skip
"""Below the user's home."""

SYSTEM = (
    "/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers",
    "/etc/sudoers.d", "/etc/ssl/private", "/etc/ssh", "/etc/krb5.keytab", "/etc/wireguard",
    "/etc/NetworkManager/system-connections", "/etc/docker", "/etc/kubernetes", "/etc/rancher",
    "/var/lib/kubelet", "/var/lib/docker", "/var/lib/containerd", "/var/lib/lxd", "/var/lib/incus",
    "/var/snap/lxd", "/var/spool/cron", "/var/backups", "/var/log", "/var/mail", "/boot",
    "/lost+found",
)  # fmt: skip
"""For the most part closed to everybody but root, whom this concerns."""

VARIABLES = (
    "SSH_AUTH_SOCK", "SSH_AGENT_PID", "GPG_AGENT_INFO", "DBUS_SESSION_BUS_ADDRESS",
    "DBUS_SYSTEM_BUS_ADDRESS", "XDG_RUNTIME_DIR", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY",
    "DOCKER_HOST", "PULSE_SERVER", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID",
    "LISTEN_FDNAMES", "TMUX", "STY", "TMPDIR", "TMP", "TEMP",
)  # fmt: skip
"""Of the environment: they lead to places that are not there."""
