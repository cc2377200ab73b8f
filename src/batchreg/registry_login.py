"""Give the Amazon ECS agent its registry credentials, out of AWS Secrets Manager.

Runs on the instance: before each start of the agent, and then from a timer. It uses the standard
library of Python 3.6 and installs nothing, because the ECS-optimized Amazon Linux 2023 image has
neither the AWS CLI nor jq, and because a subnet may reach nothing but VPC endpoints.

Each run does what is missing and may be killed at any moment: the next one continues. What an
instance without credentials does is decided by --on-failure. `park` keeps its agent from taking
tasks, and powers the instance off in the end; `join` starts the agent without credentials.

Every byte of the code is sent in the user data, which has room for few. So there are no type
annotations here, and `userdata.script` removes comments and docstrings.
"""

import argparse
import base64
import hmac
import json
import os
import random
import re
import signal
import sys
import time
from email.utils import parsedate_to_datetime
from hashlib import sha256
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

# The agent looks Docker Hub's images up under this key alone, trailing slash included
# (amazon-ecs-agent, dockerauth.go).
HUB = "https://index.docker.io/v1/"
HUB_HOST = re.compile(r"((index|registry(-1|\.hub)?|hub|auth|www)\.)?docker\.(io|com)")
REGISTRY = re.compile(r"(https?://)?(([a-z0-9]+((?:\.|-+)[a-z0-9]+)*)(:[0-9]{1,5})?)(/.*)?")
# What a retry cannot change. Anything else may pass: throttling, a role that has yet to spread.
FINAL = re.compile("ResourceNotFound|Invalid(Request|Parameter)|Validation|DecryptionFailure")
# Linux starts no program with a variable of over 128 KiB, its name included (MAX_ARG_STRLEN), and
# then there is no agent at all.
MAX_AUTH_CHARS = 131000
NEVER = float("inf")


class Refused(Exception):
    pass  # a fact that no retry changes; its text quotes no value of a secret but the host


def registry_key(url):
    """Return the one key under which the agent finds the images of the registry at `url`.

    Raises Refused for a spelling that no image would match.
    """
    match = REGISTRY.fullmatch(url.strip(" \t\r\n").lower())
    if not match:  # not quoted: it may hold a password, as in https://user:password@host
        raise Refused("registry_url is not a host: write it like ghcr.io")
    scheme, host, name, _, port, _ = match.groups()
    if HUB_HOST.fullmatch(host):
        return HUB
    if (scheme, port) in (("https://", ":443"), ("http://", ":80")):
        raise Refused(f"registry_url: write {name} or {host}, as your images do")
    if host == name != "localhost" and "." not in name:
        raise Refused(f"registry_url: {name}/x is Docker Hub's, so add a domain or port to {name}")
    return host


def encode(user, password):
    return base64.b64encode(f"{user + ''}:{password + ''}".encode()).decode()


def login(text):
    """Return (registry key, auth) for the JSON `text` of a secret."""
    try:
        # Not strict: people paste key files, and then a string holds line breaks as they are.
        fields = json.loads(text, strict=False)
        user, password = fields["username"], fields["password"]
        key = registry_key(fields.get("registry_url") or HUB)
        auth = encode(user, password)
    except KeyError as missing:
        raise Refused(f"it has no {missing}") from None
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise Refused('it is not JSON text like {"username": "...", "password": "..."}') from None
    # The agent splits at the first colon, and trims NULs.
    if not user or not password or ":" in user or "\0" in user + password:
        raise Refused("an empty username or password, a NUL, or a colon in username")
    return key, auth


def sign(url, body, region, keys, now):
    """Return the headers of a GetSecretValue request, signed with Signature Version 4.

    Source: docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """
    host, path = urlsplit(url)[1:3]
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    headers = {
        "content-type": "application/x-amz-json-1.1",
        "host": host,
        "x-amz-date": stamp,
        "x-amz-target": "secretsmanager.GetSecretValue",
    }
    if keys["Token"]:
        headers.update({"x-amz-security-token": keys["Token"]})
    names = ";".join(sorted(headers))
    lines = [f"{name}:{headers[name]}" for name in sorted(headers)]
    lines = ["POST", quote(path, "/~"), "", *lines, "", names, sha256(body).hexdigest()]
    digest = sha256("\n".join(lines).encode()).hexdigest()
    scope = f"{stamp[:8]}/{region}/secretsmanager/aws4_request"
    key = ("AWS4" + keys["SecretAccessKey"]).encode()
    for word in [*scope.split("/"), f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"]:
        key = hmac.new(key, word.encode(), sha256).digest()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={keys['AccessKeyId']}/{scope}, "
        f"SignedHeaders={names}, Signature={key.hex()}")
    return headers


def send(url, headers, seconds, body=None, method=None, proxies=None):
    """Send one request; return (status, Date header, body). Raises OSError without an answer."""
    request = Request(url, body, headers, method=method)
    try:
        answer = build_opener(ProxyHandler(proxies)).open(request, timeout=seconds)
    except HTTPError as error:
        answer = error
    with answer:
        return answer.code, answer.headers["Date"], answer.read()


def find_keys(seconds):
    """Return the keys of the environment, or else the instance role's, through IMDSv2."""
    env = os.environ.get
    if env("AWS_ACCESS_KEY_ID"):
        return {"AccessKeyId": env("AWS_ACCESS_KEY_ID"),
                "SecretAccessKey": env("AWS_SECRET_ACCESS_KEY"), "Token": env("AWS_SESSION_TOKEN")}
    base = env("AWS_EC2_METADATA_SERVICE_ENDPOINT") or "http://169.254.169.254"

    def ask(path, method, name, value):
        url, headers = f"{base.rstrip('/')}/latest/{path}", {"X-aws-ec2-metadata-" + name: value}
        status, _, body = send(url, headers, min(seconds, 2), method=method, proxies={})
        if status != 200:  # right after boot, 404: the role is not there yet
            raise OSError(f"no role on this instance (metadata answers HTTP {status})")
        return body.decode().strip()

    # Not `token =`, nor `["x-amz-security-token"] =`: scanners take such lines for secrets.
    session = ask("api/token", "PUT", "token-ttl-seconds", "300")
    path = "meta-data/iam/security-credentials/"
    role = ask(path, "GET", "token", session)
    return json.loads(ask(path + role, "GET", "token", session))


class SecretsManager:
    """Reads secrets, one signed request each."""

    def __init__(self, region, endpoint):
        self.region, self.endpoint = region, endpoint.rstrip("/") + "/"
        self.keys, self.skew = None, 0

    def read(self, secret_id, seconds):
        """Return the secret's text. Raises Refused, or OSError where a retry may help."""
        try:
            self.keys = self.keys or find_keys(seconds)
            body = json.dumps({"SecretId": secret_id}).encode()
            headers = sign(self.endpoint, body, self.region, self.keys, time.time() + self.skew)
            status, date, answer = send(self.endpoint, headers, min(seconds, 5), body)
            answer = json.loads(answer)
            if status == 200:
                return {**answer}.get("SecretString")  # TypeError where it is no object
            # The code alone: the service's message can quote the request, session token included.
            code = re.sub(".*#|[^A-Za-z]", "", answer["__type"])
            # A clock that is off spoils the signature; the answer says what time it is.
            self.skew = parsedate_to_datetime(date).timestamp() - time.time()
        except (HTTPException, ValueError, KeyError, TypeError) as error:
            self.keys = None
            raise OSError(f"no proper answer ({type(error).__name__})") from None
        self.keys = None  # they may be what is wrong
        raise (Refused if FINAL.match(code) else OSError)(f"HTTP {status} {code}")


def read_all(secret_ids, read, deadline, clock=time.monotonic, sleep=time.sleep,
             spread=random.random, quiet=False):
    """Return ({secret id: text}, {secret id: problem}), trying for `deadline` seconds.

    Each round tries every secret that is still missing, so that a broken one does not cost the
    others. Between rounds: exponential backoff with full jitter, as a whole fleet may boot at once
    (aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter).
    """
    # scripts/fleet.py chose the numbers: the last of 10,000 instances waits 1.3 times as long as
    # the service's limit makes it. Doubling from 1 second up to 20: 1.6 times, and more calls.
    texts, problems, waiting = {}, {}, dict.fromkeys(secret_ids)
    end, ceiling = clock() + deadline, 3
    while True:
        for secret_id, before in list(waiting.items()):
            try:
                texts[secret_id] = read(secret_id, max(end - clock(), 1))
            except Refused as error:
                problems[secret_id] = str(error)
            except OSError as error:
                waiting[secret_id] = str(error)
                if str(error) != before and not quiet:
                    say(f"waiting for {secret_id}: {error}")
                continue
            del waiting[secret_id]
        pause = spread() * ceiling
        if not waiting or clock() + pause >= end:
            return texts, {**problems, **waiting}
        sleep(pause)
        ceiling = min(ceiling * 1.3, 10)


def collect(texts, problems):
    """Turn the secrets' texts into one auth map; what cannot work goes to `problems`."""
    auths, room = {}, MAX_AUTH_CHARS
    for secret_id, text in sorted(texts.items()):  # not in the order in which they came
        try:
            key, pair = login(text)
            size = 0 if key in auths else len(key + pair) + 15  # with quotes and braces
            if size > room:
                raise Refused("with it, the credentials are too long")
            room -= size
            if auths.setdefault(key, {"auth": pair})["auth"] != pair:
                raise Refused(f"another secret has other credentials for {key}")
        except Refused as error:
            problems[secret_id] = str(error)
    return auths


def read_lines(path):
    """Return the lines of the file at `path`; the last one is what follows the final newline."""
    if not os.path.exists(path):
        return [b""]
    with open(path, "rb") as file:
        return file.read().split(b"\n")


def settings(lines):
    """Return {name: value} as ecs-init reads it: trimmed, split at the first "=", the last wins.

    It takes the blanks in "X = Y" for a part of both.
    """
    return dict(line.strip().partition(b"=")[::2] for line in lines)


def auths_in(path):
    """Return the auth map in the ecs.config at `path`, whoever wrote it."""
    kept = {}
    try:
        present = settings(read_lines(path))
        found = present[b"ECS_ENGINE_AUTH_TYPE"] and json.loads(present[b"ECS_ENGINE_AUTH_DATA"])
        for url, entry in found.items():
            auth = entry.get("auth") or encode(entry["username"], entry["password"])  # type docker
            try:
                url = registry_key(url)
            except Refused:
                pass
            kept[url] = {"auth": auth + ""}
    except Exception:
        pass  # the agent reads no more of it either
    return kept


def put(path, auths, extra, complete, drop=(), note=dict):
    """Put our settings into the ecs.config at `path`; return whether the agent must read it again.

    `extra` are more lines, for settings that the file does not have: else it is somebody's decision.
    Where not `complete`, a registry that the file has and `auths` has not keeps its credentials.
    `drop` and `note` are as in `edit`.
    """
    if not complete:
        auths = {**auths_in(path), **auths}
    # One line, ASCII, no blanks: quotes, comments and line breaks mean nothing to the agent.
    data = json.dumps(auths, separators=(",", ":"), sort_keys=True)
    if len(data) > MAX_AUTH_CHARS:  # with the old ones: rather none of the new
        raise OSError(0, "the credentials are too long")
    ours = ["ECS_ENGINE_AUTH_TYPE=dockercfg", "ECS_ENGINE_AUTH_DATA=" + data]
    present = settings(read_lines(path))
    ours += [line for line in extra if line.partition("=")[0].encode() not in present]
    return edit(path, [line.encode() for line in ours], drop, note)


def edit(path, ours, drop, note):
    """Set the lines `ours` and remove `drop`; return whether the agent must read the file again.

    Every other line stays as it is. Readers see the old file or the new one, never a part, and
    where nothing changes the file is not touched. `note` is called before the agent must be
    restarted, so that whoever is killed knows it later.
    """
    path = os.path.realpath(path)
    lines, wanted = read_lines(path), settings(ours)
    kept = [line for line in lines if line.strip() not in drop]
    changed = kept != lines or not wanted.items() <= settings(lines).items()
    if changed or lines[-1] or os.stat(path).st_mode & 0o77:
        # A line like "X = Y" does not count for the agent, but goes as well.
        kept = [line for line in kept if line.partition(b"=")[0].strip() not in wanted]
        if not lines[-1]:
            kept.pop()
        if changed:
            note(restart=True)
        # The final newline, or the next writer's text is glued to our last line.
        replace(path, b"\n".join(kept + ours + [b""]))
    return changed


def replace(path, content):
    """Make `content` the whole of the file at `path`, in one step, for its owner's eyes only."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    scratch = f"{path}.{os.getpid()}"
    try:
        with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        if os.path.exists(scratch):
            os.unlink(scratch)


class Agent:
    """The ECS agent: its ecs.config, and what one run leaves to the next until a reboot.

    That is `until`, when to power off (time.monotonic; NEVER once there have been credentials),
    `why`, what the console was told last of an agent without them, and `restart`: the agent must
    read its file again.
    """

    def __init__(self, args):
        self.config, self.path = args.ecs_config, args.state if args.on_failure else ""
        text = read_lines(self.path)[0]
        self.state = json.loads(text or "{}") or {"until": time.monotonic() + args.patience}
        self.parking = read_lines(sys.path[0] + "/parking")[:-1]  # lines for ecs.config

    def note(self, **changes):
        self.state.update(changes)
        if self.path:
            replace(self.path, json.dumps(self.state).encode())

    def restart(self):
        if self.state.get("restart"):
            enqueue("try-restart ecs.service")
            self.note(restart=False)

    def release(self, auths, extra, complete):
        """Give the agent these credentials, or leave it those it has, and let it take tasks."""
        # Or a run was killed before it said so.
        was_parked = {*self.parking} & {*read_lines(self.config)} or self.state.get("restart")
        if not auths:
            edit(self.config, [], self.parking, self.note)
        elif put(self.config, auths, extra, complete, self.parking, self.note):
            say(f"{self.config} has the credentials for {', '.join(sorted(auths))}")
        if was_parked:
            say("released")
        self.restart()
        if self.path and (self.state["until"] < NEVER or "why" in self.state):
            enqueue("stop batchreg-retry.timer")
            self.state = {}
            self.note(until=NEVER)

    def park(self):
        """Let the agent register its instance without taking tasks. Raises OSError."""
        foreign = b"\n".join({*read_lines(self.config)} - {*self.parking})
        if re.search(rb"(?im)^\s*\w+_proxy\s*=", foreign):
            raise OSError(0, "ecs.config has proxy settings")
        edit(self.config, self.parking, (), self.note)
        if self.state["until"] < NEVER:  # else it has credentials in memory, until it stops
            self.restart()

    def do_without(self, problems, join):
        """Park the agent, or let it `join` as it is; return whether to hold it and try again."""
        why = "; ".join(f"{name}: {problems[name]}" for name in problems)
        late = time.monotonic() - self.state["until"]
        held, said = False, "continuing without credentials"
        if not join:
            try:
                self.park()
                said = "parked"
            except OSError as error:
                held, said = late > -NEVER, f"cannot park the agent, {error.strerror}"
        if why != self.state.get("why"):
            enqueue("start batchreg-retry.timer")
            say(f"{said}: {why}")
            self.note(why=why)
        # An environment of which no instance ever registers becomes invalid for good. An agent that
        # has not registered five minutes later never will.
        if join or late < 0 or not (held or late > 300 or registered()):
            return held
        say("no registry credentials: powering off")
        enqueue("poweroff")
        return False


def registered():
    """Tell whether the agent has registered the instance with ECS; it listens only then."""
    try:
        body = send("http://localhost:51678/v1/metadata", {}, 2, proxies={})[2]
        return json.loads(body)["ContainerInstanceArn"]
    except Exception:
        pass


def enqueue(job):
    # --no-block: ecs.service waits for the boot to end and for us, and would wait for ever.
    os.system("systemctl --no-block " + job)


def say(message):
    print("batchreg:", message, file=sys.stderr, flush=True)


def refresh(args, agent):
    """Bring the secrets' credentials into ecs.config; return {what: problem}."""
    def late(*_):
        raise TimeoutError("no answer in time")

    def read(*request):
        signal.alarm(12)  # an end for each attempt, even if an answer comes byte by byte
        try:
            return manager.read(*request)
        finally:
            signal.alarm(0)

    signal.signal(signal.SIGALRM, late)
    endpoint = args.endpoint_url or f"https://secretsmanager.{args.region}.{args.url_suffix}"
    working = bool(auths_in(agent.config))
    try:
        manager = SecretsManager(args.region, endpoint)
        quiet = working or "why" in agent.state
        texts, problems = read_all(args.secret_id, read, args.deadline, quiet=quiet)
        auths = collect(texts, problems)
        if auths or working:
            # Where we join, other credentials in the file are somebody else's.
            agent.release(auths, args.setting, not problems and args.on_failure != "join")
    except Exception as error:  # not its text, nor a traceback: either could quote a secret
        problem = getattr(error, "strerror", None) or type(error).__name__
        problems = {args.ecs_config: f"it is unchanged: {problem}"}
    if not args.on_failure or auths_in(agent.config):
        for name, problem in problems.items():
            say(f"{name}: {problem}" + "; credentials that work stay" * working)
    return problems


def main(argv=None):
    """Run the program; 0 when the credentials of every secret are in ecs.config, else 1."""
    parser = argparse.ArgumentParser(fromfile_prefix_chars="@", allow_abbrev=False)
    option = parser.add_argument
    option("--region", required=True)
    option("--secret-id", action="append", required=True)
    option("--endpoint-url", default=os.environ.get("AWS_ENDPOINT_URL"))
    option("--url-suffix", default="amazonaws.com")
    option("--ecs-config", default="/etc/ecs/ecs.config")
    option("--deadline", type=float, default=60)  # seconds
    option("--setting", action="append", default=[])  # NAME=VALUE, for ecs.config
    option("--on-failure", choices=["park", "join"])  # neither: only say what is missing
    option("--patience", type=float, default=630)  # seconds until a parked instance powers off
    option("--state", default="/run/batchreg.json")
    args = parser.parse_args(argv)
    agent = Agent(args)
    while True:
        problems = refresh(args, agent)
        done = not problems or not args.on_failure or auths_in(agent.config)
        if done or not agent.do_without(problems, args.on_failure == "join"):
            return 1 if problems else 0
        time.sleep(5)


if __name__ == "__main__":
    sys.exit(main())
