"""From the text of a filter to the filter."""

from __future__ import annotations

import re
from typing import NoReturn

from rankpipe.errors import RecipeError
from rankpipe.where import BOUNDS, KEYWORDS, NUMBER, TURNED, WORD, Equals, Exists, Filter, In, Range, Value

DEEPEST = 100  # conditions within each other
TOKEN = re.compile(
    rf"""(?P<quoted>(["'`])(?:\\.|(?!\2)[^\\])*\2)|(?P<sign>[<>=!]=|[<>=(),])|(?P<word>{WORD.pattern})""", re.S
)


class Reader:
    """Reads a filter, a token at a time.

    ``self.token`` is the one that is looked at, ``self.kind`` what it is: word, sign, quoted, or nothing at the end.
    """

    def __init__(self, text: str) -> None:
        self.text, self.deep = text, 0
        self.start = self.end = 0
        self.kind = self.token = ""
        self._next()

    def read(self) -> Filter:
        """The whole text."""
        made = self._or()
        return self._refuse("'and', 'or' or the end") if self.kind else made

    def _or(self) -> Filter:
        made = self._and()
        while self._took("or"):
            made |= self._and()
        return made

    def _and(self) -> Filter:
        made = self._one()
        while self._took("and"):
            made &= self._one()
        return made

    def _one(self) -> Filter:
        self.deep += 1
        if self.deep > DEEPEST:
            self._refuse(f"at most {DEEPEST} conditions within each other")
        if self._took("not"):
            made = ~self._one()
        elif self._took("("):
            made = self._or()
            self._need(")")
        elif self._took("exists"):
            self._need("(")
            made = Exists(self._field())
            self._need(")")
        elif self._is_field():
            made = self._compared(self._field())
        else:
            made = self._between()
        self.deep -= 1
        return made

    def _compared(self, field: str) -> Filter:
        turned = self._took("not")
        if self._took("in"):
            self._need("(")
            among: list[Value] = []
            while not self._took(")"):
                if among:
                    self._need(",")
                among.append(self._value())
            return ~In(field, among) if turned else In(field, among)
        if turned:
            self._refuse("'in'")
        sign = self._sign("==", "=", "!=", *BOUNDS)
        if sign in BOUNDS:
            return Range(field, **{BOUNDS[sign]: self._value()})
        return ~Equals(field, self._value()) if sign == "!=" else Equals(field, self._value())

    def _between(self) -> Filter:
        value, sign = self._value(), self._sign(*BOUNDS)
        bounds = {BOUNDS[TURNED[sign]]: value}
        field = self._field()
        if self.token in BOUNDS:
            if (name := BOUNDS[self.token]) in bounds:
                self._refuse(f"a sign that is not {self.token}")
            self._next()
            bounds[name] = self._value()
        return Range(field, **bounds)

    def _is_field(self) -> bool:
        return self.token[:1] == "`" or (self.kind == "word" and not NUMBER.fullmatch(self.token))

    def _field(self) -> str:
        if not self._is_field() or self.token.lower() in KEYWORDS:
            self._refuse("a field, its name in `backquotes` if it is an odd one")
        return self._next()

    def _value(self) -> Value:
        if self.kind == "quoted" and self.token[0] != "`":
            return self._next()
        if self.kind != "word" or self.token.lower() in (*KEYWORDS, "null", "none"):
            self._refuse("a value, in quotes if it is an odd text; null is none (see exists)")
        word = self._next()
        if not NUMBER.fullmatch(word):
            return word == "true" if word in ("true", "false") else word
        try:
            return float(word) if {*word} & {*".eE"} else int(word)
        except ValueError:
            self._refuse(f"a number of fewer digits than {len(word)} before it")

    def _sign(self, *signs: str) -> str:
        return self._next() if self.token in signs else self._refuse(f"one of {', '.join(signs)}")

    def _need(self, token: str) -> None:
        if not self._took(token):
            self._refuse(repr(token))

    def _took(self, token: str) -> bool:
        if took := self.kind != "quoted" and self.token.lower() == token:
            self._next()
        return took

    def _next(self) -> str:
        """Look at the next token; what the last one said."""
        said = re.sub(r"\\(.)", r"\1", self.token[1:-1], flags=re.S) if self.kind == "quoted" else self.token
        self.start = len(self.text) - len(self.text[self.end :].lstrip())
        found = TOKEN.match(self.text, self.start)
        if found is None and self.start < len(self.text):
            self._refuse("a quote's end" if self.text[self.start] in "\"'`" else "a name, value or sign")
        self.kind, self.token = (found.lastgroup or "", found[0]) if found else ("", "")
        self.end = found.end() if found else self.start
        return said

    def _refuse(self, wanted: str) -> NoReturn:
        rest = self.text[self.start :]
        place = f"at character {self.start + 1}, {rest[:20]!r}" if rest else "at the end"
        raise RecipeError([f"where: {self.text!r}: {place}: expected {wanted}"])
