"""The names of the values in a run's log: who logs what under which name, so that no two values have one name."""

from __future__ import annotations

from attrs import define, field

from ganlab.config.schema import Experiment
from ganlab.run.records import TICK_NAMES
from ganlab.training.game import Game
from ganlab.utils.errors import InvalidRules


@define
class LogNames:
    """The names in a run's log, each with who logs it, in words."""

    owners: dict[str, str] = field(factory=dict)

    @classmethod
    def of(cls, experiment: Experiment, game: Game) -> LogNames:
        """Returns the names in the log that are known before a game's moves are made."""
        names = cls(dict.fromkeys([*TICK_NAMES, *(one.key for one in experiment.schedule)], "the record's own value"))
        for move in game.rules.moves:
            names.claim(f"loss_{move.name}", f"the loss of the move {move.name!r}")
            names.claim(f"stopped_{move.name}", f"whether the move {move.name!r} was stopped")
        for player in game.players.values():
            names.claim(f"grad_norm_{player.name}", f"the gradient's norm of {player.name!r}")
            for name, _ in player.penalties:
                names.claim(name, f"the penalty {name!r}")
        return names

    def claim(self, name: str, owner: str) -> None:
        """Notes whose name in the log it is; raises InvalidRules where it is another's."""
        other = self.owners.setdefault(name, owner)
        if other != owner:
            raise InvalidRules(
                f"game: {owner} and {other} would both be logged as {name!r}, as one mean; expected different names"
            )
