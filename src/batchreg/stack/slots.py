"""The slots of a stack's registries: which parameters of the template belong to which registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from batchreg.errors import BatchregError
from batchreg.registry.logins import Credentials, RegistrySpec, merged
from batchreg.registry.names import host_of, key_of
from batchreg.registry_login import HUB
from batchreg.render.settings import suffix


def assign(specs: Sequence[RegistrySpec], present: Mapping[int, str]) -> dict[int, RegistrySpec]:
    """Give each registry a slot: the one that it has in `present` ({slot: URL}), or a free one."""
    slots = {key_of(url): slot for slot, url in present.items()}
    free = (number for number in range(1, 1000) if number not in present)
    return {slots.get(one.key) or next(free): one for one in merged(specs)}


def parameters(
    assigned: Mapping[int, RegistrySpec],
    present: Mapping[int, str],
    find: Callable[[RegistrySpec, bool], Credentials],
) -> dict[str, str]:
    """Return the template's parameters for the registries, without those that the stack keeps.

    `find(spec, new)` returns the credentials; for a registry that is not `new`, what the stack
    keeps is empty.
    """
    given: dict[str, str] = {}
    for slot, spec in assigned.items():
        n = suffix(slot)
        new = slot not in present
        found = find(spec, new)
        values = {
            f"RegistryUrl{n}": spec.url.strip() if new else "",
            f"Username{n}": found.username,
            f"Password{n}": found.password,
        }
        given |= {name: value for name, value in values.items() if value}
    return given


def of_one(given: Mapping[str, str], present: Mapping[int, str]) -> dict[str, str]:
    """Move the values of --registry-url, --username and the password to the slot that is meant.

    Raises BatchregError if the stack has several registries and `given` names none of them.
    """
    names = ("RegistryUrl", "Username", "Password")
    mine = {name: given[name] for name in names if name in given}
    rest = {name: value for name, value in given.items() if name not in names}
    slots = list(present) or [1]
    if len(slots) > 1 and mine:
        key = key_of(given.get("RegistryUrl", HUB))
        slots = [slot for slot, url in present.items() if key_of(url) == key]
        if "RegistryUrl" not in given or not slots:
            hosts = ", ".join(host_of(key_of(url)) for url in present.values())
            raise BatchregError(
                "The stack has several registries.",
                f"Name one of {hosts} with --registry-url, or list them all with --registry.",
            )
        del mine["RegistryUrl"]
    return {**rest, **{name + suffix(slots[0]): value for name, value in mine.items()}}
