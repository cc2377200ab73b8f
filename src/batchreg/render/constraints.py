"""What values may be: the closed sets and ranges that options, parameters and checks share.

It imports nothing, so that the command line can read it before anything else is needed. A range is
(least, most).
"""

# The ECS agent's key for Docker Hub, and the default of RegistryUrl. registry_login.HUB is the same
# text: that file travels to the instances alone and imports nothing of ours.
DOCKER_HUB = "https://index.docker.io/v1/"

# AWS Batch refuses new compute environments on its Amazon Linux 2 images since 2026-06-30.
IMAGE_TYPES = ("ECS_AL2023", "ECS_AL2023_NVIDIA")

# What an instance without credentials does: its agent is parked, or starts without them.
ON_FAILURE = ("park", "join")
DEFAULT_INSTANCE_TYPES = {"ECS_AL2023": "optimal", "ECS_AL2023_NVIDIA": "g4dn"}
PROVISIONING_MODELS = ("EC2", "SPOT")

# A job's, from the first to the last.
JOB_STATUSES = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED", "FAILED")

# ECS_IMAGE_PULL_BEHAVIOR of the ECS agent.
PULL_BEHAVIORS = ("default", "always", "once", "prefer-cached")

# How often the instances read the secrets again.
REFRESH_MINUTES, DEFAULT_REFRESH_MINUTES = (5, 1440), 30

MAX_VCPUS, DEFAULT_MAX_VCPUS = (1, 1_000_000), 256
ROOT_VOLUME_GIB, DEFAULT_ROOT_VOLUME_GIB = (30, 16384), 100
# What gp3 allows; without a price up to 125 MiB/s and 3,000 IOPS.
# Source: docs.aws.amazon.com/ebs/latest/userguide/general-purpose.html
ROOT_VOLUME_THROUGHPUT, DEFAULT_ROOT_VOLUME_THROUGHPUT = (125, 2_000), 300
ROOT_VOLUME_IOPS, DEFAULT_ROOT_VOLUME_IOPS = (3_000, 80_000), 3_000
IOPS_PER_MIBS, IOPS_PER_GIB = 4, 500
# How long running jobs may continue while AWS Batch replaces their instances.
JOB_TIMEOUT_MINUTES, DEFAULT_JOB_TIMEOUT_MINUTES = (1, 7_200), 360

# Patterns. CloudFormation would take {{resolve:...}} for a reference to another value, in a
# parameter too.
USERNAME = r"(?!.*\{\{resolve:)[^:\x00-\x1f\x7f]+"
PASSWORD = r"(?!.*\{\{resolve:)[^\x00-\x1f\x7f]+"

# The beginning of a pull-through cache's repositories. ECR allows 30 characters, of which up to seven
# say which registry they come from (upstreams.Upstream.short).
CACHE_PREFIX = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*"
CACHE_PREFIX_LENGTH = (2, 23)
# After how many days ECR expires an image that it has cached; the next pull gets it again.
CACHE_DAYS, DEFAULT_CACHE_DAYS = (1, 3_650), 90

# arn:partition:secretsmanager:region:account:secret:name-suffix. IAM policies need it whole.
SECRET_ARN = (
    r"arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@!-]+-[A-Za-z0-9]{6}"
)
KMS_KEY_ARN = r"arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+"

_POLICY_ARN = r"arn:aws[a-z-]*:iam::(aws|[0-9]{12}):policy/[\w+=.@/-]+"
POLICY_ARNS = rf"|{_POLICY_ARN}(,{_POLICY_ARN})*"  # no condition can tell an empty list
IMAGE_ID = r"ami-[0-9a-f]{8,17}"

# Every spelling of a registry's URL that registry_login.registry_key accepts, and no other.
_NAME = r"[a-z0-9]+((\.|-+)[a-z0-9]+)*"
_BLANKS = r"[ \t\r\n]*"
REGISTRY_URL = (
    rf"(?i){_BLANKS}(?!https://[^/]*:443(/|{_BLANKS}$))(?!http://[^/]*:80(/|{_BLANKS}$))"
    rf"(https?://)?(localhost|[a-z0-9]+(-+[a-z0-9]+)*\.{_NAME}|{_NAME}:[0-9]{{1,5}})"
    rf"(:[0-9]{{1,5}})?(/.*)?{_BLANKS}"
)
