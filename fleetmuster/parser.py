"""The words of `fm`: every noun, verb and option, with examples, as one argparse tree.

Rule: global options are accepted before the noun and after the verb alike; nothing may
be abbreviated (a script that says `--time` would break with the next option). Values
are turned into the API's units here, so a wrong one is a usage error before any request.
It imports no command. Rejected: click, typer (third-party in the base install, and slow
to start).
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fleetmuster import __version__
from fleetmuster.demands import (
    parse_constraint,
    parse_dependency,
    parse_env,
    parse_need,
    parse_preference,
    parse_spread,
)
from fleetmuster.parser_parts import CommandParser as _Parser
from fleetmuster.parser_parts import examples_of as _examples
from fleetmuster.parser_parts import global_options as _globals
from fleetmuster.parser_parts import json_option as _json
from fleetmuster.parser_parts import leaf as _leaf
from fleetmuster.parser_parts import limit_option as _limit
from fleetmuster.parser_parts import listed as _add_listed
from fleetmuster.parser_parts import noun as _noun
from fleetmuster.parser_parts import several as _several
from fleetmuster.parser_parts import value_of as _value
from fleetmuster.parser_parts import whole as _whole
from fleetmuster.quantities import parse_cpu, parse_duration, parse_memory, parse_rate

if TYPE_CHECKING:
    from fleetmuster.parser_parts import Group, Options

TASK_STATES = ("pending", "assigned", "running", "succeeded", "failed", "cancelled")
TAINT_EFFECTS = "no_place: nothing new; prefer_not: rather elsewhere; evict: what is there leaves, too"
DELEGATED = {
    "up": "run a whole fleet on this machine: broker, controller, agents",
    "controller": "run a controller",
    "sim": "the real controller and agents, simulated: do the promises hold, whatever breaks?",
}


def build() -> argparse.ArgumentParser:
    """The whole tree. Parsed names: `noun`, `verb` and the options of that verb."""
    top = _Parser(
        prog="fm",
        description="Fleetmuster: place work on a fleet of small computers over MQTT.",
        epilog=_examples(
            "fm up                                   a demo fleet on this machine",
            "fm job run --cpu 0.5 --wait -- uptime   a job on the device with most fitting room",
            "fm help exit-codes                      what a script can rely on",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        parents=[_globals(leaf=False)],
    )
    top.add_argument("--version", action="version", version=f"fm {__version__}")
    nouns = top.add_subparsers(dest="noun", metavar="COMMAND", required=True)
    for name, text in DELEGATED.items():
        nouns.add_parser(name, help=text, add_help=False)
    _add_job(nouns)
    _add_task(nouns)
    _add_device(nouns)
    _add_fleet(nouns)
    _add_plan(nouns)
    _add_rebalance(nouns)
    _add_context(nouns)
    page = _leaf(
        nouns, "help", "a page on a topic, or the help of a command", "fm help exit-codes", "fm help job run"
    )
    page.add_argument("topic", nargs="*")
    return top


def _add_job(nouns: Group) -> None:
    verbs = _noun(nouns, "job", "declare work and follow it", "fm job run -- uptime", "fm job list")
    _add_job_run(verbs)
    listing = _leaf(verbs, "list", "all jobs", "fm job list", "fm job list -o json --limit 20")
    _limit(listing)
    show = _leaf(verbs, "show", "one job", "fm job show j-1", "fm job show j-1 -o json")
    show.add_argument("id", metavar="ID")
    cancel = _leaf(verbs, "cancel", "stop jobs", "fm job cancel j-1", "fm job cancel j-1 j-2 --yes")
    _several(cancel)
    wait = _leaf(
        verbs,
        "wait",
        "until a batch job has ended, or a service runs in full (0 succeeded, 1 failed, 7 too late)",
        "fm job wait j-1",
        "fm job wait j-1 --timeout 5m && echo done",
    )
    wait.add_argument("id", metavar="ID")
    wait.add_argument(
        "--timeout", type=_value(parse_duration), metavar="TIME", help="give up after this long"
    )


def _add_job_run(verbs: Group) -> None:
    run = _leaf(
        verbs,
        "run",
        "declare a job: fm job run [options] -- CMD ARG...",
        "fm job run --count 3 --cpu 0.5 --memory 64MiB --wait -- ./measure --fast",
        "fm job run --kind service --constraint label.zone=a --guarantee at_least_one -- ./serve",
        "fm job run --gpu 0.5 --gpu-model G2 --prefer label.zone=a:80 --spread site -- ./infer",
    )
    _add_job_words(run)
    run.add_argument("--idempotency-key", metavar="KEY", help="saying it again submits no second job")
    run.add_argument("--wait", action="store_true", help="as fm job wait: 0 succeeded, 1 failed, 7 too late")
    run.add_argument("--wait-timeout", type=_value(parse_duration), metavar="TIME", help="only with --wait")


def _add_job_words(run: Options) -> None:
    """Everything that a job may say."""
    run.add_argument("--name", help="default: after the command")
    kinds = ("batch", "service", "daemon", "cron")
    run.add_argument("--kind", choices=kinds, help="default: batch; daemon: one on every device that matches")
    run.add_argument("--count", type=_whole(1), metavar="N", help="tasks (default: 1); each has its FM_INDEX")
    _add_amounts(run.add_argument_group("what each task needs"))
    _add_places(run.add_argument_group("where"))
    _add_order(run.add_argument_group("when"))
    _add_trouble(run.add_argument_group("if it fails, or its device is lost"))
    run.add_argument("--env", type=_value(parse_env), action="append", default=[], metavar="K=V")
    runtime = "what runs it; a device must have it: process (the default), simulated (virtual devices)"
    run.add_argument("--runtime", default="process", metavar="NAME", help=runtime)
    run.add_argument("stray", nargs="*", help=argparse.SUPPRESS)


def _add_amounts(run: Options) -> None:
    run.add_argument(
        "--cpu", type=_value(parse_cpu), metavar="CORES", help="of each task: 2 or 500m (default: 0.1)"
    )
    run.add_argument("--reference-cpu", action="store_true", help="--cpu counts cores of a Raspberry Pi 4B")
    run.add_argument(
        "--memory", type=_value(parse_memory), metavar="SIZE", help="1GiB; bare: MiB (default: 32MiB)"
    )
    run.add_argument("--disk", type=_value(parse_memory), metavar="SIZE", help="as --memory")
    run.add_argument("--gpu", type=_value(parse_cpu), metavar="GPUS", help="0.5: a share of one; or whole")
    _add_listed(run, "--gpu-model", _value(str), "MODEL", "only these models")
    run.add_argument("--up", type=_value(parse_rate), metavar="RATE", help="to send: 500k, 2M (bit/s)")
    run.add_argument("--down", type=_value(parse_rate), metavar="RATE", help="to receive")
    run.add_argument("--slots", type=_whole(0), metavar="N", help="of the tasks that a device takes at once")
    _add_listed(run, "--need", _value(parse_need), "NAME[=N]", "what only this site counts: camera=1")


def _add_places(run: Options) -> None:
    more = "device must have it; also != < <= > >= in not_in exists not_exists regex semver distinct"
    _add_listed(run, "--constraint", _value(parse_constraint), "'A=V'", more + ", distinct_device")
    wish = "better there, by 1 to 100 (default: 50), or worse by -1 to -100"
    _add_listed(run, "--prefer", _value(parse_preference), "'A=V[:WEIGHT]'", wish)
    shares = "evenly over its values, or 'label.zone a=70,b=30'"
    _add_listed(run, "--spread", _value(parse_spread), "'A[:WEIGHT]'", shares)
    _add_listed(run, "--tolerate", _value(str), "KEY[=VALUE][:EFFECT]", "in spite of this taint; *: any")
    run.add_argument("--policy", metavar="NAME", help="how devices are chosen (default: the fleet's)")
    run.add_argument("--gang", action="store_true", help="all tasks at once, or none")


def _add_order(run: Options) -> None:
    run.add_argument("--daemon", action="store_true", help="as --kind daemon")
    run.add_argument("--cron", metavar="'M H D M W'", help="a batch job at each of these times")
    run.add_argument("--zone", metavar="ZONE", help="of --cron: Europe/Berlin (default: UTC)")
    run.add_argument("--overlap", action="store_true", help="of --cron: even while the last one runs")
    run.add_argument("--missed", choices=("skip", "once", "all"), help="of --cron: times that passed unseen")
    _add_listed(run, "--after", _value(parse_dependency), "JOB[:ended]", "once it has succeeded, or ended")
    run.add_argument("--parallel", type=_whole(0), metavar="N", help="so many of its tasks at a time")
    run.add_argument(
        "--priority", type=_whole(None), metavar="N", help="0 to 100, higher first (default: 50)"
    )
    run.add_argument("--owner", metavar="NAME", help="whose share of the fleet it is (default: yours)")
    run.add_argument(
        "--ttl", type=_value(parse_duration), metavar="TIME", help="from creation; then it failed"
    )


def _add_trouble(run: Options) -> None:
    run.add_argument(
        "--timeout", type=_value(parse_duration), metavar="TIME", help="a run may take this long"
    )
    run.add_argument(
        "--lease", type=_value(parse_duration), metavar="TIME", help="running on without news (default: 30s)"
    )
    run.add_argument(
        "--stop-grace",
        type=_value(parse_duration),
        metavar="TIME",
        help="between TERM and KILL (default: 5s)",
    )
    run.add_argument(
        "--max-attempts",
        type=_whole(0),
        metavar="N",
        help="own failures allowed; 0: unlimited (batch: 3, others: 0)",
    )
    kept = "at most one live process (the default), or runs that go on without contact and may overlap"
    run.add_argument("--guarantee", choices=("at_most_one", "at_least_one"), help=kept)
    choices = ("newest", "keep_original", "longest_running", "best_score")
    run.add_argument(
        "--on-return", choices=choices, help="which run of an at_least_one task stays (default: newest)"
    )


def _add_task(nouns: Group) -> None:
    verbs = _noun(nouns, "task", "look at single tasks", "fm task list --state running", "fm task output t-1")
    listing = _leaf(
        verbs, "list", "tasks", "fm task list --job j-1", "fm task list --device pi-7 --state running"
    )
    listing.add_argument("--job", default="", metavar="ID")
    listing.add_argument("--device", default="", metavar="ID")
    listing.add_argument("--state", default="", choices=TASK_STATES)
    _limit(listing)
    show = _leaf(verbs, "show", "one task and its story", "fm task show t-1", "fm task show t-1 -o json")
    show.add_argument("id", metavar="ID")
    output = _leaf(
        verbs,
        "output",
        "what it wrote",
        "fm task output t-1",
        "fm task output t-1 --stream stderr --attempt 1",
        "fm task output t-1 --follow",
    )
    output.add_argument("id", metavar="ID")
    output.add_argument("--stream", choices=("stdout", "stderr"), default="stdout")
    output.add_argument("--attempt", type=_whole(1), metavar="N", help="default: the latest")
    output.add_argument("--follow", action="store_true", help="until the attempt has ended")
    explain = _leaf(
        verbs, "explain", "why it is there, or nowhere", "fm task explain t-1", "fm task explain t-1 -o json"
    )
    explain.add_argument("id", metavar="ID")


def _add_device(nouns: Group) -> None:
    verbs = _noun(nouns, "device", "the machines of the fleet", "fm device list", "fm device drain pi-7")
    listing = _leaf(verbs, "list", "all devices", "fm device list", "fm device list -o json")
    _limit(listing)
    show = _leaf(verbs, "show", "one device", "fm device show pi-7", "fm device show pi-7 -o json")
    show.add_argument("id", metavar="ID")
    add = _leaf(
        verbs,
        "add",
        "let a device join; its configuration is shown only now",
        "fm device add pi-7 -o agent.toml",
        "fm device add pi-7 | ssh pi-7 'umask 077; cat > agent.toml'",
        formats=False,
    )
    add.add_argument("id", metavar="ID")
    add.add_argument("-o", "--out-file", metavar="FILE", help="write it there (0600) instead of stdout")
    remove = _leaf(
        verbs,
        "remove",
        "take credential and state away",
        "fm device remove pi-7",
        "fm device remove pi-7 --yes",
    )
    _several(remove)
    texts = {
        "cordon": "no new tasks",
        "uncordon": "new tasks again",
        "drain": "no new tasks, and move those it has",
    }
    for verb, text in texts.items():
        _several(_leaf(verbs, verb, text, f"fm device {verb} pi-7", f"fm device {verb} pi-7 pi-8"), yes=False)
    marks = {
        "taint": (
            "a mark that keeps tasks away",
            "fm device taint pi-7 gpu=shared:no_place",
        ),
        "untaint": ("take a mark away", "fm device untaint pi-7 gpu=shared:no_place"),
    }
    for verb, (text, example) in marks.items():
        mark = _leaf(verbs, verb, text, example, f"{example} -q")
        mark.add_argument("id", metavar="ID")
        mark.add_argument("taints", nargs="+", metavar="KEY[=VALUE]:EFFECT", help=TAINT_EFFECTS)
    ping = _leaf(verbs, "ping", "round trip by MQTT", "fm device ping pi-7", "fm device ping pi-7 -o json")
    ping.add_argument("id", metavar="ID")


def _add_fleet(nouns: Group) -> None:
    fleet = _leaf(
        nouns, "fleet", "the whole fleet on one screen", "fm fleet", "fm fleet -o json", "fm fleet unfreeze"
    )
    verbs = fleet.add_subparsers(dest="verb", metavar="VERB")
    _leaf(
        verbs, "unfreeze", "end a freeze of failover", "fm fleet unfreeze", "fm fleet unfreeze --context lab"
    )


def _add_plan(nouns: Group) -> None:
    verbs = _noun(
        nouns,
        "plan",
        "what would happen: who moves, what breaks (then 9), what is left; nothing changes",
        "fm plan drain pi-7",
        "fm plan survive --sites 2",
    )
    drain = _leaf(
        verbs, "drain", "devices are emptied", "fm plan drain pi-7", "fm plan drain pi-7 pi-8 --json"
    )
    drain.add_argument("ids", nargs="+", metavar="DEVICE")
    lose = _leaf(
        verbs, "lose", "devices or whole sites fail", "fm plan lose pi-7 pi-8", "fm plan lose --site attic"
    )
    lose.add_argument("ids", nargs="*", metavar="DEVICE")
    _add_listed(lose, "--site", _value(str), "NAME", "every device with this label 'site'; '': those without")
    add = _leaf(
        verbs,
        "add",
        "more devices of a shape: what of the waiting work would they take?",
        "fm plan add 3 --profile pi-5-8g --label site=attic",
        "fm plan add 10 --cpu 4 --memory 2GiB",
    )
    add.add_argument("count", type=_whole(1), nargs="?", default=1, metavar="N", help="default: 1")
    add.add_argument("--profile", metavar="NAME", help="a device class; what is said here counts instead")
    _add_shape(add)
    submit = _leaf(
        verbs,
        "submit",
        "a job: fm plan submit [options as of fm job run] [-- CMD ARG...]",
        "fm plan submit --count 20 --cpu 0.5 --memory 64MiB",
        "fm plan submit --gang --count 4 --constraint site=attic --json -- ./train",
    )
    _add_job_words(submit)
    change = _leaf(
        verbs,
        "change",
        "an open job asks for something else, or has more or fewer tasks",
        "fm plan change j-1 --count 20",
        "fm plan change j-1 --memory 512MiB --constraint site=attic --json",
    )
    _add_changes(change)
    survive = _leaf(
        verbs,
        "survive",
        "any site fails, or any two: which can't be lost?",
        "fm plan survive",
        "fm plan survive --sites 2 --json",
    )
    survive.add_argument("--sites", type=int, choices=(1, 2), default=1, help="so many at once (default: 1)")
    for verb in (drain, lose, add, submit, change):
        verb.add_argument(
            "--survive", type=int, choices=(1, 2), metavar="N", help="and any N sites after that: 1 or 2"
        )
    for verb in (drain, lose, add, submit, change, survive):
        _json(verb)


def _add_changes(change: Options) -> None:
    """What of a job would be otherwise."""
    change.add_argument("id", metavar="JOB")
    change.add_argument("--count", type=_whole(1), metavar="N", help="so many tasks in all")
    change.add_argument("--policy", metavar="NAME", help="how devices are chosen; '': the fleet's")
    instead = "instead of all that it has"
    _add_listed(change, "--constraint", _value(parse_constraint), "'A=V'", f"{instead}, distinct_device too")
    change.add_argument("--no-constraints", action="store_true", help="it has none")
    _add_listed(change, "--tolerate", _value(str), "KEY[=VALUE][:EFFECT]", instead)
    change.add_argument("--no-tolerations", action="store_true", help="it has none")
    _add_quantities(change, "task")


def _add_quantities(some: Options, of: str) -> None:
    some.add_argument("--cpu", type=_value(parse_cpu), metavar="CORES", help=f"of each {of}: 2 or 500m")
    some.add_argument("--memory", type=_value(parse_memory), metavar="SIZE", help="512MiB, 4GiB; bare: MiB")
    some.add_argument("--disk", type=_value(parse_memory), metavar="SIZE", help="as --memory")
    some.add_argument("--gpu", type=_value(parse_cpu), metavar="GPUS", help="whole accelerators, or a part")
    some.add_argument("--up", type=_value(parse_rate), metavar="RATE", help="500k, 2M (bit/s)")
    some.add_argument("--down", type=_value(parse_rate), metavar="RATE", help="as --up")
    some.add_argument("--slots", type=_whole(0), metavar="N", help="of the tasks that a device takes at once")
    _add_listed(some, "--need", _value(parse_need), "NAME[=N]", "what only this site counts: camera=1")


def _add_shape(add: Options) -> None:
    """What each added device has."""
    _add_quantities(add, "device")
    _add_listed(add, "--label", _value(parse_env), "K=V", "a label, as site=attic")
    _add_listed(
        add, "--runtime", _value(str), "NAME", "process, simulated (default: the profile's, or process)"
    )
    _add_listed(add, "--taint", _value(str), "KEY[=VALUE]:EFFECT", TAINT_EFFECTS)


def _add_context(nouns: Group) -> None:
    verbs = _noun(
        nouns, "context", "which controllers this user knows", "fm context list", "fm context use demo"
    )
    _leaf(verbs, "list", "all contexts", "fm context list", "fm context list -o json")
    use = _leaf(verbs, "use", "make one the current", "fm context use demo", "fm context use lab && fm fleet")
    use.add_argument("name", metavar="NAME")
    show = _leaf(verbs, "show", "one context", "fm context show", "fm context show demo --show-token")
    show.add_argument("name", metavar="NAME", nargs="?")
    show.add_argument("--show-token", action="store_true", help="the secret, too")
    remove = _leaf(
        verbs,
        "remove",
        "forget one; the controller is not touched",
        "fm context remove demo",
        "fm context remove lab -q",
    )
    remove.add_argument("name", metavar="NAME")


def _add_rebalance(nouns: Group) -> None:
    verbs = _noun(
        nouns,
        "rebalance",
        "plans that level the load of devices, or make room for a task; drains are among them",
        "fm rebalance plan",
        "fm rebalance approve r1-1",
    )
    plan = _leaf(
        verbs,
        "plan",
        "make a plan; it waits for approval",
        "fm rebalance plan --dry-run",
        "fm rebalance plan --max-moves 20 --approve",
        "fm rebalance plan --task j1k31zvtb7q2m4c.0",
    )
    how = plan.add_mutually_exclusive_group()
    how.add_argument("--dry-run", action="store_true", help="only look; the plan is not kept")
    how.add_argument("--approve", action="store_true", help="begin at once")
    plan.add_argument("--max-moves", type=_whole(1), metavar="N", help="at most so many")
    plan.add_argument("--task", metavar="ID", help="make room for this pending task; it fits nowhere")
    listing = _leaf(verbs, "list", "all plans", "fm rebalance list", "fm rebalance list -o json")
    show = _leaf(
        verbs,
        "show",
        "one plan, move by move",
        "fm rebalance show d1767323045-2",
        "fm rebalance show ID --json",
    )
    texts = {"approve": "begin a plan", "reject": "end a plan; moves that began go on"}
    decisions = [
        _leaf(verbs, v, t, f"fm rebalance {v} r1767323045-1", f"fm rebalance {v} ID -q")
        for v, t in texts.items()
    ]
    for verb in (show, *decisions):
        verb.add_argument("id", metavar="ID")
    for verb in (plan, listing, show):
        _json(verb)
