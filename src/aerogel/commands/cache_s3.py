"""Caches in S3, or in what speaks its protocol: `PREFIXblobs/DIGEST` and `PREFIXmanifests/NAME`, as BuildKit lays it out.

boto3 speaks for us; it is there with `pip install 'aerogel[s3]'` and imported when a cache asks for it. What a flag
does not say (region, credentials) it finds where AWS's own tools do: variables, files, the machine's role.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, BinaryIO, NamedTuple, cast

from aerogel.commands.cache_places import check_by_writing
from aerogel.commands.transport import trusted_file
from aerogel.commands.world import World
from aerogel.errors import EXIT_NETWORK, EXIT_USAGE, AerogelError
from aerogel.oci.digest import VerifiedReader
from aerogel.oci.types import Descriptor, Manifest, encode
from aerogel.redact import redact

__all__ = ["Bucket", "S3Cache", "need_library"]

_BUFFER = 1 << 20
_MOST_DOCUMENT = 64 << 20
_ABSENT = {"404", "NoSuchKey", "NotFound"}


class Bucket(NamedTuple):
    """A place in S3, by the keys of BuildKit's cache of this type."""

    bucket: str
    name: str = "aerogel"
    region: str = ""
    prefix: str = ""
    endpoint_url: str = ""
    use_path_style: bool = False
    access_key_id: str = ""
    secret_access_key: str = ""
    session_token: str = ""


def need_library() -> None:
    """Raises `cache.no-s3` where boto3 is not installed."""
    if importlib.util.find_spec("boto3") is None:
        raise AerogelError(
            "a cache of type `s3` needs boto3, which is not installed",
            code="cache.no-s3",
            exit_status=EXIT_USAGE,
            hints=["install it with `pip install 'aerogel[s3]'`"],
        )


class S3Cache:
    """A name in a bucket."""

    def __init__(self, where: Bucket, world: World) -> None:
        self._where = where
        self._client: Any = _client(where, world)

    def __str__(self) -> str:
        return f"s3://{self._where.bucket}/{self._where.prefix}{self._where.name}"

    @property
    def home(self) -> str:
        where = self._where
        return f"s3 {where.endpoint_url} {where.region} {where.bucket} {where.prefix}"

    @property
    def subject(self) -> None:
        return None

    def manifest(self) -> bytes:
        with self._errors("GetObject", self._manifest_key), self._got(self._manifest_key) as body:
            return cast("bytes", body.read(_MOST_DOCUMENT))

    def read(self, blob: Descriptor) -> bytes:
        if blob.size > _MOST_DOCUMENT:
            raise AerogelError(
                f"blob `{blob.digest}` has {blob.size} bytes, too many for a document", code="cache.malformed"
            )
        with self._errors("GetObject", self._blob_key(blob)), self._open(blob) as stream:
            return stream.read()

    def fetch(self, blob: Descriptor, file: BinaryIO, on_bytes: Callable[[int], object]) -> None:
        with self._errors("GetObject", self._blob_key(blob)), self._open(blob) as stream:
            while data := stream.read(_BUFFER):
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
                on_bytes(len(data))

    def check(self) -> None:
        check_by_writing(self)

    def place(self, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        key = self._blob_key(blob)
        with self._errors("HeadObject", key):
            if self._size(key) == blob.size:
                return
        with self._errors("PutObject", key), open_blob() as stream:
            # In parts, side by side, when it is long.
            self._client.upload_fileobj(_Plain(stream), self._where.bucket, key)

    def finish(self, manifest: Manifest, records: bytes) -> None:
        import io

        self.place(manifest.config, lambda: io.BytesIO(records))
        key = self._manifest_key
        with self._errors("PutObject", key):
            self._client.put_object(
                Bucket=self._where.bucket, Key=key, Body=encode(manifest), ContentType=manifest.media_type
            )

    @property
    def _manifest_key(self) -> str:
        return f"{self._where.prefix}manifests/{self._where.name}"

    def _blob_key(self, blob: Descriptor) -> str:
        return f"{self._where.prefix}blobs/{blob.digest}"

    def _size(self, key: str) -> int | None:
        from botocore.exceptions import ClientError

        try:
            return int(self._client.head_object(Bucket=self._where.bucket, Key=key)["ContentLength"])
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") not in _ABSENT:
                raise
            return None

    @contextmanager
    def _got(self, key: str) -> Iterator[Any]:
        with closing(self._client.get_object(Bucket=self._where.bucket, Key=key)["Body"]) as body:
            yield body

    @contextmanager
    def _open(self, blob: Descriptor) -> Iterator[BinaryIO]:
        with self._got(self._blob_key(blob)) as body:
            reader = VerifiedReader(body, blob.digest, blob.size, what=f"blob `{blob.digest}` of `{self}`")
            yield cast("BinaryIO", reader)

    @contextmanager
    def _errors(self, operation: str, key: str) -> Iterator[None]:
        """Faults of the library as ours. Raises `cache.missing`, `cache.s3`."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            told = error.response.get("Error", {})
            code = str(told.get("Code", ""))
            if code in _ABSENT:
                raise AerogelError(f"`{self}` has no `{key}`", code="cache.missing") from None
            why = f"{code} ({redact(str(told.get('Message', '')))})"
            raise self._fault(operation, key, why, _hint(code)) from None
        except (BotoCoreError, Boto3Error) as error:
            raise self._fault(operation, key, redact(str(error)), _hint(type(error).__name__)) from None

    def _fault(self, operation: str, key: str, why: str, hint: str) -> AerogelError:
        place = redact(self._where.endpoint_url) or "AWS"
        return AerogelError(
            f"{operation} `{key}` in bucket `{self._where.bucket}` of {place}: {why}",
            code="cache.s3",
            exit_status=EXIT_NETWORK,
            hints=[hint] if hint else [],
        )


class _Plain:
    """A stream that only reads: the library closes and seeks what it can."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(size)


def _hint(code: str) -> str:
    if code in ("NoCredentialsError", "PartialCredentialsError", "AccessDenied", "InvalidAccessKeyId", "403"):
        return "give `access_key_id` and `secret_access_key`, or set `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`"
    if code == "NoSuchBucket":
        return "make the bucket first, or check `bucket` and `region`"
    if code == "NoRegionError":
        return "give `region`, or set `AWS_REGION`"
    if code in ("EndpointConnectionError", "ConnectTimeoutError"):
        return "check `endpoint_url`, `region` and the network"
    return ""


def _client(where: Bucket, world: World) -> Any:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    environment = world.settings.environment
    for secret in (where.secret_access_key, where.session_token):
        if secret:
            world.redactor.add(secret)
    config = Config(
        connect_timeout=10,
        read_timeout=60,
        retries={"mode": "standard", "max_attempts": 4},
        s3={"addressing_style": "path" if where.use_path_style else "auto"},
    )
    try:
        return boto3.client(
            "s3",
            region_name=where.region or environment.get("AWS_REGION") or None,
            endpoint_url=where.endpoint_url or environment.get("AWS_ENDPOINT_URL_S3") or None,
            aws_access_key_id=where.access_key_id or None,
            aws_secret_access_key=where.secret_access_key or None,
            aws_session_token=where.session_token or None,
            verify=trusted_file(world, "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"),
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        raise AerogelError(
            f"the cache in bucket `{where.bucket}` cannot be spoken to: {redact(str(error))}",
            code="cache.s3",
            exit_status=EXIT_USAGE,
            hints=[_hint(type(error).__name__) or "check `endpoint_url` and `region`"],
        ) from None
