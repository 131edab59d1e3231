"""A store that speaks S3, on the loopback address, for tests."""

import logging
from typing import Any

BUCKET = "bucket"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "only-of-the-tests", "AWS_DEFAULT_REGION": "us-east-1"}


class StoreServer:
    """A server of moto in this process, with an empty bucket."""

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer  # takes seconds

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server: Any = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        _, self.port = self._server.get_host_and_port()
        self._made().create_dir(BUCKET)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to use the store as `s3://bucket`."""
        return CREDENTIALS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}

    def _made(self) -> Any:
        from pyarrow.fs import S3FileSystem

        return S3FileSystem(
            endpoint_override=f"127.0.0.1:{self.port}",
            scheme="http",
            region=CREDENTIALS["AWS_DEFAULT_REGION"],
            access_key=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            secret_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            allow_bucket_creation=True,
        )

    def stop(self) -> None:
        self._server.stop()
