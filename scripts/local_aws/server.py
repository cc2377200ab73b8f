"""The embedded AWS's own process: ministack with what it lacks.

Only `__main__` imports this, and this imports ministack, which reads its settings then.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket

from local_aws import HOST, REGION


def serve(listener: socket.socket) -> None:
    """Run the server on a listening socket until a signal ends it."""
    # All it has is in memory, and clients keep connections open: there is nothing to wait for.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
    port = listener.getsockname()[1]
    os.environ.update(
        GATEWAY_PORT=str(port),
        MINISTACK_ACCOUNT_ID="123456789012",
        MINISTACK_REGION=REGION,
        MINISTACK_IMDS_V2_REQUIRED="1",  # as on Amazon Linux 2023
        # Neither files, nor other ports, nor the containers of this machine are its business.
        PERSIST_STATE="0",
        SFTP_ENABLED="0",
        IOT_MTLS_ENABLED="0",
        DOCKER_HOST="unix:///nonexistent",
        LOG_LEVEL="INFO",
    )
    pace = float(os.environ.get("LOCAL_AWS_PACE") or 0)
    # ministack reads all of this when it is imported, and its app sets up the logging for the rest.
    from ministack.app import app  # isort: skip
    import hypercorn.asyncio
    from hypercorn.config import Config

    from local_aws import (
        account,
        batch,
        cloudformation,
        ecr,
        environments,
        instance_types,
        instances,
        jobs,
        policies,
        pull_through,
        running,
        spot_fleets,
    )

    environments.UPDATE_SECONDS = max(pace, 0.3)  # long enough to be seen
    if hurry := os.environ.get("LOCAL_AWS_HURRY"):
        running.HURRY = float(hurry)
        jobs.local_aws_jobs({"status": "RUN"})
    batch.install()
    cloudformation.install(pace)
    account.install()
    policies.install()
    ecr.install()
    pull_through.install()
    instances.install()
    instance_types.install()
    spot_fleets.install()
    facts = account.network()
    endpoint = f"http://{HOST}:{port}"
    environ = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": endpoint,
        "BATCHREG_SUBNET_ID": " ".join(facts["subnet_ids"]),
        "BATCHREG_SECURITY_GROUP_ID": " ".join(facts["security_group_ids"]),
    }
    print(json.dumps({"environ": environ, **facts}), flush=True)
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.loglevel = "WARNING"
    asyncio.run(hypercorn.asyncio.serve(app, config, shutdown_trigger=asyncio.Event().wait))
