"""The table of mutations: every clause of the protocol's rules that can be switched off."""

from __future__ import annotations

from mutations_controller import CONTROLLER
from mutations_device import DEVICE
from mutations_holds import HOLDS
from mutations_leader import LEADER
from mutations_moves import MOVES
from mutations_placement import PLACEMENT
from mutations_returns import RETURNS
from mutations_runs import RUNS
from switches import Mutation

MUTATIONS: dict[str, Mutation] = {
    mutation.name: mutation
    for mutation in (*DEVICE, *RUNS, *CONTROLLER, *HOLDS, *LEADER, *RETURNS, *PLACEMENT, *MOVES)
}

UNCAUGHT: dict[str, str] = {
    "S1 an older report overwrites the view": "healed by D3 within a heartbeat: the answer names no"
    " processed `Runs` of this session, and the device says it again",
    "S1 reconnect at an equal floor": "costs one reconnect: the next session is above every floor that"
    " is retained, so nothing loops",
    "S3 a clean session": "the connection asks for one, and no core can see whether it got it",
    "S3 only a minute of connection resets the tries": "politeness towards a broker under load, not safety",
    "D1 the document is saved before it acts": "backed up by L2 and D2: after a crash the device names"
    " the older revision in a new session, and that is granted to nobody",
    "D2 the agent looks at the deadline": "backed up by the guard, which looks again and is switched off"
    " in `D2 start after the deadline`; it saves an order",
    "D3 a removal never waits": "costs time alone: while it waits the attempt is granted and held on",
    "D4 the guard's exits are read first": "backed up by the entry in the journal, which is switched off"
    " in `D4 what has an entry is started` under just that order",
    "D5 a removed run's end is listed": "absence frees it too (L3); only the reason of its end is lost",
    "D6 saved before it is said": "backed up by D4: the intent is saved, so after a crash the attempt is"
    " `interrupted` and never runs again",
    "L1 grants in order of the lease book alone": "the run book and the guard refuse an earlier deadline"
    " too; all three are off in `L1 deadlines move back`",
    "L3 what no grant covered is free at once": "without it a task waits one hold; nothing breaks",
    "L3 processed only when saved": "the world throws a core away whose save failed, so nothing can be"
    " processed and not saved; the barrier itself is switched off in `barrier effects before the save`",
    "L4 only the newest agent is obeyed": "two agents of one device are not simulated; the guard's own"
    " tests show it with real processes",
    "L4 no second run of a task": "backed up by L3 and by the agent, which starts no task that is live;"
    " the guard's own tests show it",
    "L4 no grant after TERM": "it would save a run that was told to leave; the guard's own tests show it",
    "L6 a document of before is granted as it is": "without it each take-over stamps every document anew;"
    " costs messages",
    "L7 only what this session showed counts": "backed up by L2: what a new session does not list is"
    " never granted",
    "C1 never retained": "backed up by the session that a command names, switched off in"
    " `C1 commands of any session`",
    "C3 at most 32 chunks in flight": "keeps documents quick on a slow link; nothing is lost without it",
}
"""Clauses whose removal nothing catches: superfluous for safety, or out of this simulator's sight."""
