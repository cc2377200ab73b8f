"""What the instances can be: instance types, the zones that have them, the machine image."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from batchreg.doctor.collect.calls import Absent, Caller, Unseen, start
from batchreg.doctor.machines import InstanceType, MachineImage
from batchreg.jobs.capacity import BUNDLES

Raw = dict[str, Any]


def types(caller: Caller, names: Sequence[str]) -> tuple[InstanceType, ...] | None:
    """Return the instance types of an environment that the region has.

    None without any name, or where AWS Batch chooses the families itself: nobody knows them.
    """
    if not names or {*names} & {*BUNDLES}:
        return None
    wanted = [name if "." in name else f"{name}.*" for name in dict.fromkeys(names)]
    offered = start(_zones, caller, wanted)
    found = caller.ask(
        "instance types",
        "ec2",
        "describe_instance_types",
        items="InstanceTypes",
        Filters=[{"Name": "instance-type", "Values": wanted}],
    )
    zones = offered.result()
    return tuple(
        InstanceType(
            name=one["InstanceType"],
            vcpus=one["VCpuInfo"]["DefaultVCpus"],
            memory=one["MemoryInfo"]["SizeInMiB"],
            gpus=sum(gpu.get("Count", 0) for gpu in one.get("GpuInfo", {}).get("Gpus", ())),
            architectures=tuple(one.get("ProcessorInfo", {}).get("SupportedArchitectures", ())),
            zones=None if zones is None else tuple(zones.get(one["InstanceType"], ())),
        )
        for one in sorted(found, key=lambda one: str(one["InstanceType"]))
        if any(fnmatch.fnmatchcase(one["InstanceType"], pattern) for pattern in wanted)
    )


def _zones(caller: Caller, wanted: Sequence[str]) -> dict[str, list[str]] | None:
    """Return {instance type: the zones that have it}, None where that could not be looked at."""
    try:
        found = caller.ask(
            "zones of instance types",
            "ec2",
            "describe_instance_type_offerings",
            items="InstanceTypeOfferings",
            LocationType="availability-zone",
            Filters=[{"Name": "instance-type", "Values": list(wanted)}],
        )
    except (Absent, Unseen):
        return None
    zones: dict[str, list[str]] = {}
    for one in found:
        zones.setdefault(one["InstanceType"], []).append(one["Location"])
    return {name: sorted(places) for name, places in zones.items()}


def chosen_image(resources: Mapping[str, Any], of_template: str) -> str:
    """Return the id of the machine image that a person has chosen, empty where AWS Batch chooses.

    One in ec2Configuration counts before one in the launch template. Several for different
    instance types are left alone. Source: API_Ec2Configuration.html of AWS Batch.
    """
    configured = resources.get("ec2Configuration", ())
    overrides = {one.get("imageIdOverride", "") for one in configured} - {""}
    if len(overrides) == len(configured) == 1:
        return str(overrides.pop())
    return "" if overrides else of_template or str(resources.get("imageId", ""))


def image(caller: Caller, image_id: str) -> MachineImage | None:
    """Look at a machine image; None for a parameter of Systems Manager's that leads to one."""
    if not image_id.startswith("ami-"):
        return None
    try:
        found = caller.ask("machine image", "ec2", "describe_images", ImageIds=[image_id])["Images"]
    except Absent:
        found = []
    for one in found:
        if one["ImageId"] == image_id:
            return MachineImage(
                id=image_id,
                state=one.get("State", "available"),
                architecture=one.get("Architecture", ""),
                name=one.get("Name", ""),
                by_amazon=one.get("ImageOwnerAlias") == "amazon",
            )
    return MachineImage(id=image_id, exists=False)
