"""Pages of `fm help TOPIC`: what is true of every command, told once.

Rule: what is a table in the code is printed from that table, so a page can't be wrong.
"""

from __future__ import annotations

from collections.abc import Callable

from fleetmuster.exits import MEANINGS

_CONTEXTS = """\
A context is a controller with a token, under a name. fm up registers one for the fleet
it starts; `fm context use NAME` chooses. They are kept in
  {path}
(mode 0600). Order: --url, --context and --token-file, then FM_URL and FM_TOKEN, then the
current context. The token of a context is only ever sent to that context's URL.
Without HOME, the home in the password database is used; without that, a private
directory in /tmp. Contexts belong to one user: what root's fm up registers, root sees.
"""

_ENVIRONMENT = """\
FM_URL            the controller, as http://127.0.0.1:8080
FM_TOKEN          its token
XDG_CONFIG_HOME   where contexts are kept (default: ~/.config)
NO_COLOR          no colour, even on a terminal
COLUMNS           width of the terminal, if it doesn't say
"""

_QUANTITIES = """\
cores      0.5   2   500m (thousandths)
memory     64MiB   1.5GiB   64M (MiB)   64 (MiB)
rates      500k   2M   1.5Mbit/s   (bits a second, always with a unit)
durations  250ms   30s   5m   1h30m   2d   (always with a unit)
In JSON: cpu_milli, memory_mib, kbit_s and milliseconds, as whole numbers.
"""

_PLACEMENT = """\
constraint  what a device must have; --constraint, may be said several times
              'label.zone=a' 'label.ram>=4' (= != < <= > >=)  'site in a,b'  'site not_in a,b'
              'label.gpu exists'  'label.gpu not_exists'  'profile regex ^pi-'
              'version semver >=1.2,<2'  'label.rack distinct'  distinct_device
            Attributes: device profile runtime site version containment limits accelerator
            heartbeat_ms core_speed_milli, label.NAME, extra.NAME, capacity.RESOURCE.
preference  a wish with a weight of -100 to 100; --prefer 'label.zone=a:50'
spread      the job's tasks over the values of an attribute; --spread label.zone, or
            --spread 'label.zone:80 a=70,b=30' with a weight and percentages
taint       a mark on a device, fm device taint ID KEY[=VALUE]:EFFECT. The effects:
              no_place: nothing new; prefer_not: rather elsewhere; evict: what is there leaves
toleration  which marks don't matter to a job: --tolerate KEY[=VALUE][:EFFECT], or '*'
policy      how devices are chosen; --policy, otherwise the fleet's: balanced, binpack, spread,
            fragmentation, round_robin, least_loaded, weighted, latency, adaptive
accelerator --gpu 0.5 is a share of one, --gpu 2 are two whole ones; --gpu-model: only these. A run
            finds the names of its own in FM_ACCELERATORS
runtime     --runtime simulated: on virtual devices, -- NAME [SECONDS] [--exit N] [--fail-rate F]
array       --count N; each task has its number in FM_INDEX, from 0. --parallel M: at most
            so many at a time. --gang: all at once, or none
order       --after JOB: once it has succeeded; --after JOB:ended: however it ended
daemon      --daemon: one task on every device that matches, also on those that come later
cron        --cron '*/5 * * * *' --zone Europe/Berlin: a batch job at each of these times
"""

_OUTPUT = """\
stdout carries data, stderr everything else. -o table is for people and may change; -o json
is for scripts: a list is one array, anything else one object, with the API's own fields.
-q silences all talk but errors; -v shows each request. Tables are cut to the width of a
terminal, never in a pipe.
"""


def _exit_codes() -> str:
    lines = [f"{code.value:>3}  {text}" for code, text in MEANINGS.items()]
    lines += ["fm sim speaks of what it simulated: 0 held, 1 violated, 10 did not converge, 11 crashed"]
    return "\n".join(lines) + "\n"


def _contexts() -> str:
    from fleetmuster.contexts import contexts_path

    return _CONTEXTS.format(path=contexts_path())


PAGES: dict[str, Callable[[], str]] = {
    "exit-codes": _exit_codes,
    "contexts": _contexts,
    "environment": lambda: _ENVIRONMENT,
    "quantities": lambda: _QUANTITIES,
    "placement": lambda: _PLACEMENT,
    "output": lambda: _OUTPUT,
}


def names() -> str:
    return ", ".join(PAGES)
