"""What etcd's refusals, and TLS's, mean for whoever runs the service: which flag, and what to do. Pure.

etcd's own errors are told apart by their texts (its api/v3/v3rpc/rpctypes/error.go), those of TLS by OpenSSL's.
"""

NOT_ENABLED = "authentication is not enabled"
WANT_A_TOKEN = (
    "invalid auth token",
    "user name is empty",
    "revision of auth store is old",
    "revision in header is old",
)
"""What etcd says of a call that it did not carry out for want of a valid token. A new one helps, if there is a user."""

WANT_A_USER = ("permission denied", "user name not found")
"""What it says of a call that came with a certificate and without a token."""

_REASONS = (
    ("authentication failed", "it does not take the user of --etcd-user with the password in --etcd-password-file"),
    (
        "user name is empty",
        "it wants to know its user: give --etcd-user and --etcd-password-file, or a certificate with a user's name",
    ),
    ("user name not found", "it has no user by the name in the certificate of --etcd-cert: give --etcd-user"),
    (
        "permission denied",
        (
            "its user that the service is, by --etcd-user or else by the name in --etcd-cert, may not use all keys "
            "under --key-prefix: grant its role readwrite there"
        ),
    ),
    ("invalid auth token", "it does not take the token that it gave for --etcd-user"),
    ("auth store is old", "its users and roles change all the time"),
    ("revision in header is old", "its users and roles change all the time"),
    ("IP address mismatch", "its certificate is not for the address in --etcd-endpoints"),
    ("Hostname mismatch", "its certificate is not for the host name in --etcd-endpoints"),
    ("certificate has expired", "its certificate has expired"),
    ("certificate is not yet valid", "its certificate is not valid yet, or this machine's clock is wrong"),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "its certificate is of none of the CAs of --etcd-ca, nor, without that, of this machine's",
    ),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS: its URL in --etcd-endpoints begins with http://"),
)
_ALERTS = ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "UNKNOWN_CA", "CERTIFICATE_EXPIRED", "CERTIFICATE_UNKNOWN")
"""What etcd says of the service's certificate, at the end of the handshake."""


def reason_of(details: str) -> str:
    """Return what is wrong, and with what. Empty: nothing that whoever runs the service could set right."""
    upper = details.upper().replace(" ", "_")
    if "ALERT" in upper and any(alert in upper for alert in _ALERTS):
        return "it does not take the service's certificate, or wants one: see --etcd-cert and --etcd-key, and its log"
    return next((reason for text, reason in _REASONS if text in details), "")


def wants_a_token(details: str) -> bool:
    """Whether a call was not carried out for want of a valid token."""
    return any(text in details for text in WANT_A_TOKEN)
