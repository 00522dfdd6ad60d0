"""One arm of a fan-out: what it is, and how its name is spelled at the edges (reports, tables, metrics, what people type)."""

from dataclasses import dataclass

from autosparse.models.arms.controls import CONTROLS, Control
from autosparse.models.methods.names import family, trains
from autosparse.models.specs.grain import NARROW
from autosparse.models.specs.run_specs import DENSE, TICKET

_SIGN = "+"  # settings of a method have none: models/methods spells 1e+20 as 1e20


def arm_name(method: str, control: str | None) -> str:
    """How reports and tables spell a method under a control: `snip`, `snip+shuffle`."""
    return f"{method}{_SIGN}{control}" if control else method


def split_name(name: str) -> tuple[str, str | None]:
    """The method and the control that `arm_name` spelled, None without one."""
    method, _, control = name.partition(_SIGN)
    return method, control or None


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One target, method, density and seed; `target` is the label of its TargetSpec.

    `method` is a criterion, a scorer, a level of a method that trains otherwise, dense or ticket; `density` None = it has no density
    target. `control` spoils one thing about the arm of `method`.
    """

    target: str
    method: str
    control: str | None = None
    density: float | None = None
    seed: int

    @property
    def name(self) -> str:
        """The method under its control: `snip+shuffle`."""
        return arm_name(self.method, self.control)

    @property
    def short(self) -> str:
        """Without target and seed: `snip+shuffle@0.05`."""
        return self.name + self._density("@")

    @property
    def text(self) -> str:
        """What names this arm and no other: `resnet8-w32-s2/snip+shuffle@0.05#10`."""
        return f"{self.target}/{self.short}#{self.seed}"

    @property
    def title(self) -> str:
        """`resnet8-w32-s2 snip+shuffle 0.05 seed 1`."""
        return f"{self.target} {self.name}{self._density(' ')} seed {self.seed}"

    @property
    def scored(self) -> bool:
        """Whether its mask is cut from scores at initialization; the others are dense, narrow, tickets, or methods that train otherwise."""
        return self.method not in (DENSE, TICKET) and not self.narrow and not trains(self.method)

    @property
    def narrow(self) -> bool:
        """Whether it is a dense network that is uniformly narrower."""
        return family(self.method) == NARROW

    @property
    def start(self) -> tuple[int, bool, str]:
        """Arms of one target with the same start drew the same initial weights and see the same batches in the same order.

        A ticket starts from a state of its IRP, a narrow network draws its own weights, the control `reinit` draws them anew, `rescale`
        scales what a mask keeps.
        """
        control = CONTROLS[self.control] if self.control else Control()
        drawn = self.short if control.weights else "anew" if control.init_seed else ""
        return self.seed, self.method == TICKET, self.short if self.narrow else drawn

    def _density(self, sign: str) -> str:
        return "" if self.density is None or self.method == DENSE else f"{sign}{self.density:g}"
