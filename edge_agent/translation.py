"""Between the core's words and a run host's: the same facts, two vocabularies.

The core knows messages and no host; a host knows runs and no message. Pure, and used by
every world: a process's agent, virtual devices, the simulator.
"""

from __future__ import annotations

from edge_agent.core import events
from edge_agent.runtimes import host
from protocol.core import Event
from protocol.messages import AssignedAttempt


def spec_of(attempt: AssignedAttempt) -> host.RunSpec:
    """What a host is asked to start."""
    amounts = attempt.resources
    return host.RunSpec(
        task=attempt.task,
        attempt=attempt.attempt,
        runtime=attempt.runtime,
        command=attempt.command,
        env=attempt.env,
        cpu_milli=amounts.cpu_milli,
        memory_mib=amounts.memory_mib,
        disk_mib=amounts.disk_mib,
        gpu_milli=amounts.gpu_milli,
        timeout_ms=attempt.timeout_ms,
        stop_grace_ms=attempt.stop_grace_ms,
        output_bytes_max=attempt.output_bytes_max,
        accelerators=attempt.accelerators,
    )


def event_of(answer: host.HostAnswer) -> Event:
    """What a host's answer is to the core."""
    if isinstance(answer, host.RunStarted):
        return events.RunStarted(answer.task, answer.attempt)
    if isinstance(answer, host.RunRefused):
        return events.RunRefused(answer.task, answer.attempt, answer.reason, answer.failed)
    if isinstance(answer, host.RunExited):
        return events.RunExited(_exit_of(answer))
    if isinstance(answer, host.HostListed):
        live = tuple((run.task, run.attempt) for run in answer.live)
        exits = tuple(_exit_of(exited) for exited in answer.exits)
        preparing = tuple((run.task, run.attempt) for run in answer.live if not run.pid)
        return events.HostListed(answer.ask, live, exits, answer.containment, answer.limits, preparing)
    return events.HostLost(answer.reason)


def _exit_of(exited: host.RunExited) -> events.RunExit:
    code = -1 if exited.exit_code is None else exited.exit_code
    return events.RunExit(exited.task, exited.attempt, code, exited.signal or 0, exited.reason)
