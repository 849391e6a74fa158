"""A secret value that cannot print itself. `reveal()` is called by injectors and by nothing
else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from rules.model import SecretRef


class Secret:
    """Holds one secret value; repr, str, format, pickling and copying give nothing away."""

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def reveal(self) -> str:
        """The value itself."""
        return self.__value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied")

    __copy__ = __reduce__

    def __deepcopy__(self, memo: object) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied")

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


@dataclass(frozen=True, slots=True)
class SecretVersion:
    """A secret as read: its reference, the version that Vault gave, and the value."""

    ref: SecretRef
    version: int | None
    """None where the engine keeps no versions (KV version 1)."""
    value: Secret
