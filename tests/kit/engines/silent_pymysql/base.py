"""Django's engine for MySQL on a PyMySQL whose ping reconnects, as before 1.2."""

import warnings

from lab.pymysql_backend import base


class DatabaseWrapper(base.DatabaseWrapper):
    def is_usable(self) -> bool:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                self.connection.ping(reconnect=True)
        except self.Database.Error:
            return False
        return True
