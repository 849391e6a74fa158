"""`when:` as a condition: an expression in CEL over the whole call."""

from __future__ import annotations

from dataclasses import dataclass

from rules.cel import When, compile_when
from rules.errors import Undecided, Unreadable
from rules.reading.call import Reading


@dataclass(frozen=True, slots=True)
class Expression:
    """Holds if the expression says true; an error in it leaves that in doubt, and so does another
    answer for who goes by the looks of the body than for who goes by its Content-Type."""

    when: When

    @classmethod
    def of(cls, text: str) -> Expression:
        return cls(compile_when(text))

    @property
    def needs_body(self) -> bool:
        return self.when.reads_body

    def holds(self, call: Reading, *, wide: bool) -> bool:
        if call.request.unread and self.when.reads_body:
            raise Unreadable("its body has not been read")
        if "time" in self.when.names and call.request.moment is None:
            raise Unreadable("the time of the call is not known")
        plain, looks = call.variables(wide=False), call.variables(wide=True)
        answer = self.when.holds(plain, wide=wide)
        if looks is not plain and self.when.reads_body:
            answer = answer if self.when.holds(looks, wide=wide) is answer else None
        if answer is None:
            doubt = plain.doubt(self.when.names) or looks.doubt(self.when.names)
            if doubt is not None:
                raise Unreadable(doubt)
            raise Undecided("an expression has no clear answer for it")
        return answer
