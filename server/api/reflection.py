"""Reflection with the comments of the protos, which Python's generated code leaves out.

`grpc_reflection` asks a descriptor pool for files, and sends each with those it imports. The
pool here answers as protobuf's own does, but with the files of the descriptor set.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import clusters.v1
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

DESCRIPTOR_SET = Path(clusters.v1.__file__).parent / "descriptor_set.binpb"


class _File:
    """A file as the servicer uses it."""

    def __init__(self, file: FileDescriptor, commented: dict[str, FileDescriptorProto]) -> None:
        self.name = file.name
        self._file = file
        self._commented = commented

    @property
    def dependencies(self) -> list[_File]:
        """The files it imports."""
        return [_File(file, self._commented) for file in self._file.dependencies]

    def CopyToProto(self, proto: FileDescriptorProto) -> None:
        """Fill in the file's own description."""
        if self.name in self._commented:
            proto.CopyFrom(self._commented[self.name])
        else:
            self._file.CopyToProto(proto)


class CommentedPool:
    """Protobuf's pool, with comments where the descriptor set has the file."""

    def __init__(self) -> None:
        self._pool: Any = descriptor_pool.Default()
        files = FileDescriptorSet.FromString(DESCRIPTOR_SET.read_bytes()).file
        self._commented = {file.name: file for file in files}

    def __getattr__(self, name: str) -> Any:
        """Give what is not changed here."""
        return getattr(self._pool, name)

    def FindFileByName(self, name: str) -> _File:
        """Find a file; KeyError when there is none."""
        return _File(self._pool.FindFileByName(name), self._commented)

    def FindFileContainingSymbol(self, symbol: str) -> _File:
        """Find the file of a message, service or, what protobuf's pool does not, call."""
        try:
            file = self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            file = self._pool.FindMethodByName(symbol).containing_service.file
        return _File(file, self._commented)
