"""The files that etcd knows the service by, looked at before anything is started for nothing."""

from operation_service.etcd_password import kept_password
from operation_service.etcd_tls import kept_context
from operation_service.settings_tls import EtcdAccess


def check_files(access: EtcdAccess) -> None:
    """Look whether each can be used.

    Raises:
        SettingsError: One of them cannot.
    """
    if access.tls_files:
        kept_context(access)
    if access.password_file is not None:
        kept_password(access.password_file)
