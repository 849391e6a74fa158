"""What can go wrong in certs/.

CertsError               str() is one sentence that says what is wrong and how to mend it
├── AuthorityUnusable    the authority's files are unreadable, corrupt, incomplete or expired
├── BadName              no certificate can be made for this host name
├── ServingUnusable      a listener's certificate or key cannot be used
└── BundleUnavailable    no system roots were found, or a bundle could not be written
"""

from __future__ import annotations


class CertsError(Exception):
    """Base of all errors raised in certs/."""


class AuthorityUnusable(CertsError):
    """The certificate authority cannot be loaded or created; nothing was changed."""


class BadName(CertsError):
    """Not a host name in letters, digits and hyphens, and not an IP address."""


class ServingUnusable(CertsError):
    """A listener's certificate or its key is unreadable, expired, or not the other's."""


class BundleUnavailable(CertsError):
    """Root certificates could not be found or written."""
