"""A store on S3 or on a server that speaks its protocol.

Endpoint, credentials and region come from where s3fs and AWS name them: AWS_ENDPOINT_URL(_S3), AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_REGION or AWS_DEFAULT_REGION, AWS profiles, FSSPEC_S3_*.
"""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from aiohttp import ClientError as TransferError
from botocore.exceptions import (
    BotoCoreError,
    CredentialRetrievalError,
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
)
from pyarrow import fs

from autosparse.models.errors import AutosparseError, ConflictError, DataError, ServiceError, not_allowed, without_password
from autosparse.storage.damage import made_again
from autosparse.storage.disk import DISK_FULL, disk_error
from autosparse.storage.leftovers import Leftover
from autosparse.storage.s3_retries import ATTEMPTS, PatientS3
from autosparse.storage.store import Entry, Store, check_key

BUCKET = re.compile("[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
CONNECT_S, READ_S = 3, 15
PART_BYTES, PARTS_AT_ONCE = 8 * 2**20, 4  # of a multipart upload: what an upload holds in memory
NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    NoAuthTokenError,
    TokenRetrievalError,
    ProfileNotFound,
)
TAKEN = ("PreconditionFailed", "412", "ConditionalRequestConflict")


@dataclass(frozen=True)
class S3Store(Store):
    """A bucket, or a prefix in one. An object is there whole or not at all, so there is nothing to move into place.

    A busy server is waited for (storage/s3_retries.py) for 40 s at least and two minutes at most; one that cannot be reached is
    given up after about 10 s, 15 s where packets vanish without an answer.
    """

    failures: ClassVar[tuple[type[Exception], ...]] = (OSError, BotoCoreError, TransferError)

    def __post_init__(self) -> None:
        bucket, _, prefix = self.root.removeprefix("s3://").partition("/")
        if not BUCKET.fullmatch(bucket):
            raise not_allowed("storage", self.root, "s3://bucket/prefix, bucket 3 to 63 of [a-z0-9.-]")
        if prefix:
            check_key(prefix)
        for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
            address = os.environ.get(name, "")
            if address != without_password(address):  # no S3 request could be signed with them, and every retry would wait
                raise not_allowed(
                    name, address, "an address without name and password; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are those"
                )

    def exists(self, key: str) -> bool:
        with self.reporting("look-up", key):
            try:
                return self._files.info(self._path(key))["type"] == "file"
            except FileNotFoundError as error:
                if _code(error) == "NoSuchBucket":
                    raise
                return False

    def read(self, key: str) -> bytes:
        with self.reporting("read", key):
            return self._files.cat_file(self._path(key))

    def write(self, key: str, data: bytes) -> None:
        with self.reporting("write", key):
            self._files.pipe_file(self._path(key), data)

    def create(self, key: str, data: bytes) -> None:
        # a conditional PUT decides; looking first covers servers that ignore the condition (rclone serve s3 1.75), but for a moment
        if self.exists(key):
            raise ConflictError(f"{self.uri(key)}: exists already")
        with self.reporting("write", key):
            try:
                self._files.pipe_file(self._path(key), data, mode="create")
            except OSError as error:
                if not isinstance(error, FileExistsError) and _code(error) not in TAKEN:
                    raise
                if self.read(key) != data:  # else it was us: a reply got lost, and the second try met the first
                    raise ConflictError(f"{self.uri(key)}: exists already") from None

    def upload(self, local: Path, key: str) -> None:
        with self.reporting("write", key):
            self._files.put_file(str(local), self._path(key), chunksize=PART_BYTES, max_concurrency=PARTS_AT_ONCE)

    def delete(self, prefix: str) -> None:
        with self.reporting("delete", prefix):
            found = self._files.find(self._path(prefix))
            if found:
                self._files.rm(found)

    def open(self, key: str) -> Any:
        with self.reporting("read", key):
            return self._files.open(self._path(key), "rb", cache_type="none")

    def local_path(self, key: str) -> None:
        return None

    def arrow(self) -> tuple[fs.FileSystem, str]:
        # not pyarrow's own S3 client: the empty objects it makes for folders, and its uploads without a length, are refused by
        # servers that keep objects as files
        return fs.PyFileSystem(fs.FSSpecHandler(self._files)), self.root.removeprefix("s3://")

    def entries(self, prefix: str = "") -> list[Entry]:
        folder, top = self._path(prefix) if prefix else self.root.removeprefix("s3://"), self.root.removeprefix("s3://") + "/"
        with self.reporting("listing", prefix):
            found = self._files.find(folder, detail=True)
        return [
            Entry(path.removeprefix(top), there["size"], there["LastModified"].timestamp() if "LastModified" in there else 0.0)
            for path, there in found.items()
            if path.startswith(folder + "/") and not path.endswith("/")
        ]

    def leftovers(self) -> list[Leftover]:
        bucket, _, own = self.root.removeprefix("s3://").partition("/")
        prefix, found, page = f"{own}/" if own else "", [], {}
        with self.reporting("listing", ""):
            while page is not None:  # s3fs lists, and aborts, those of the whole bucket
                try:
                    answer = self._files.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **page)
                except FileNotFoundError as error:
                    if _code(error) != "NoSuchUpload":  # rclone's way of saying that there are none
                        raise
                    break
                found += [upload for upload in answer.get("Uploads", []) if upload["Key"].startswith(prefix)]
                marks = {name: answer.get(f"Next{name}") for name in ("KeyMarker", "UploadIdMarker")}
                page = marks if answer.get("IsTruncated") else None
        return [
            Leftover(
                kind="upload",
                key=one["Key"].removeprefix(prefix),
                name=one["UploadId"],
                started=one["Initiated"].timestamp(),
                size=self._uploaded(bucket, one),
            )
            for one in found
        ]

    def _uploaded(self, bucket: str, upload: dict[str, Any]) -> int:
        """Bytes of the parts of an upload; 0 where it has ended since it was listed."""
        size, page = 0, {}
        with self.reporting("listing", ""), suppress(FileNotFoundError):
            while page is not None:
                answer = self._files.call_s3("list_parts", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"], **page)
                size += sum(part["Size"] for part in answer.get("Parts", []))
                page = {"PartNumberMarker": answer["NextPartNumberMarker"]} if answer.get("IsTruncated") else None
        return size

    def discard(self, leftover: Leftover) -> None:
        bucket, _, key = f"{self.root}/{leftover.key}".removeprefix("s3://").partition("/")
        with self.reporting("delete", leftover.key), suppress(FileNotFoundError):
            self._files.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=leftover.name)

    @cached_property
    def _files(self) -> Any:
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")  # botocore knows the second only
        return PatientS3(
            client_kwargs={"region_name": region} if region else {},
            config_kwargs={
                "connect_timeout": CONNECT_S,
                "read_timeout": READ_S,
                "retries": {"mode": "adaptive", "max_attempts": ATTEMPTS},
                "response_checksum_validation": "when_required",  # some servers send the whole object's checksum with a range
            },
            default_block_size=PART_BYTES,
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    @cached_property
    def _endpoint(self) -> str:
        try:
            address = urlsplit(self._files.s3.meta.endpoint_url)
        except BotoCoreError:  # a configuration that gives no client
            return "S3"
        return f"{address.scheme}://{address.netloc.rpartition('@')[2]}"

    def _path(self, key: str) -> str:
        return f"{self.root}/{check_key(key)}".removeprefix("s3://")

    def _failure(self, operation: str, key: str, error: Exception, seconds: float, needed: int) -> AutosparseError:
        uri, code = f"{self.root}/{key}".rstrip("/"), _code(error) or type(error).__name__
        if isinstance(error, OSError) and (os.path.isabs(str(error.filename)) or error.errno in DISK_FULL):
            return disk_error(error.filename or "the local disk", error, needed)
        if code == "NoSuchUpload":  # ended by another try, whose reply got lost, or by `autosparse gc`
            return ServiceError(f"S3: {operation} of {uri} at {self._endpoint} was ended by somebody else ({code})")
        if code == "NoSuchBucket":
            return DataError(f"{uri}: there is no such bucket at {self._endpoint}")
        if isinstance(error, FileNotFoundError):
            return DataError(f"{uri}: not found{made_again(uri)}")
        if isinstance(error, (PermissionError, *NO_CREDENTIALS)):
            mend = "export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=...  # or AWS_PROFILE"
            return DataError(f"{uri}: access denied by {self._endpoint} ({code})", {"mend": mend})
        return ServiceError(f"S3: {operation} of {uri} at {self._endpoint} failed after {seconds:.0f} s of trying ({code})")


def _code(error: Exception) -> str:
    """The code in the server's answer, where there was one."""
    answer: Any = getattr(error.__cause__, "response", None) or {}
    return answer.get("Error", {}).get("Code", "")
