"""Part of the coordinator: turns of the model that are due, and the one that is under way."""

from __future__ import annotations

from dataclasses import dataclass, field

from daskps.run import events as ev


@dataclass(slots=True)
class Turning:
    """Finished clocks whose turn has not been taken, and what was asked of the model."""

    due: list[int] = field(default_factory=list)
    """Ascending: one, or two where tasks may run while the model looks at the clock before."""
    number: int = 0
    """Of the newest turn."""
    asked: bool = False
    """Whether its answer is waited for."""

    def ask(self) -> ev.TakeTurn:
        """Return the action for the first turn that is due."""
        self.number, self.asked = self.number + 1, True
        return ev.TakeTurn(self.number, self.due[0])

    def answered(self, event: ev.TurnTaken | ev.TurnFailed) -> int | None:
        """Take an answer; return the clock that it is for, or None if nobody waits for it."""
        if not self.asked or event.number != self.number:
            return None  # a loss came between: what was done is taken back
        self.asked = False
        return self.due.pop(0) if isinstance(event, ev.TurnTaken) else self.due[0]

    def interrupted(self) -> None:
        """Take note of a loss: the answer that is waited for does not count."""
        self.asked = False

    def rewound(self) -> None:
        """Take note that the run went back to a clock whose turn has been taken."""
        self.due.clear()
