"""What instances can be, and what they start from: plain values, a part of the facts."""

from __future__ import annotations

from dataclasses import dataclass

from batchreg.jobs.capacity import RESERVED_MIB


@dataclass(frozen=True, kw_only=True)
class InstanceType:
    """An instance type that EC2 offers in the region. `memory`: as installed, in MiB.

    `architectures` as EC2 names them: x86_64, arm64. `zones`: of the region, those that have it, None
    where that was not looked at.
    """

    name: str
    vcpus: int
    memory: int
    gpus: int = 0
    architectures: tuple[str, ...] = ()
    zones: tuple[str, ...] | None = None

    def holds(self, vcpus: float, memory: int, gpus: int) -> bool:
        """Tell whether a job may fit: the kernel takes some of the memory, nobody knows how much."""
        return vcpus <= self.vcpus and memory <= self.memory - RESERVED_MIB and gpus <= self.gpus

    def __str__(self) -> str:
        gpus = f", {self.gpus} GPUs" if self.gpus else ""
        return f"{self.name} ({self.vcpus} vCPUs, {self.memory} MiB{gpus})"


@dataclass(frozen=True, kw_only=True)
class MachineImage:
    """The machine image that a person has chosen. `architecture` as EC2 names it: x86_64, arm64.

    `by_amazon`: Amazon owns it, so that its name says what it is.
    """

    id: str
    exists: bool = True
    state: str = "available"
    architecture: str = ""
    name: str = ""
    by_amazon: bool = False

    @property
    def without_agent(self) -> bool:
        """Tell whether it is known to come without the ECS agent: Amazon Linux, not for ECS."""
        plain = self.name.startswith(("al2023-ami-", "amzn2-ami-"))
        return self.by_amazon and plain and "ecs" not in self.name

    @property
    def row(self) -> tuple[str, str]:
        """What was looked at, and its state."""
        made = f", {self.architecture}" if self.architecture else ""
        return f"Machine image {self.id}", f"{self.state}{made}" if self.exists else "missing"
