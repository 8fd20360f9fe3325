"""A verb of the command line, none of whose options is lost: of one that is given twice the last would count, without a word."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand


class Verb(TyperCommand):
    """A command that refuses an option given more than once, but for switches and for those that may be repeated."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments of a call. Raises BadParameter, as for any wrong use."""
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for place, option in enumerate(given):
            may_repeat = getattr(option, "multiple", False) or getattr(option, "is_flag", False) or option.nargs != 1
            if option in given[:place] and not may_repeat:
                name = "/".join(getattr(option, "opts", ()))
                raise typer.BadParameter("is given more than once, and one of them would be lost", ctx=ctx, param_hint=name)
        return super().parse_args(ctx, args)
