"""A database of the first version, with work in it, is led by the present one."""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path

from controller.core.controller import Controller
from controller.core.leadership import Beginning
from controller.core.records import AttemptState, JobRules
from controller.store.sqlite import APPLICATION_ID, SqliteStore, migrations
from protocol.core import Save
from protocol.resources import Resources

SPEC = ["process", ["true"], {}, [500, 64, 0, 1_500], [["label.zone", "=", "a"]], 0, 5_000]


def write_the_first_version(path: Path) -> None:
    """A job of two tasks, one of them running on a device with two accelerators."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript(migrations()[0])
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("PRAGMA user_version = 1")
        db.execute(
            "INSERT INTO jobs VALUES"
            " ('j','n','batch',2,0,'at_most_one',3,0,30000,?,'open','run',1,1,'me','','')",
            (json.dumps(SPEC),),
        )
        for index, state, device, attempt in ((0, "running", "d1", 1), (1, "pending", "", 0)):
            db.execute(
                "INSERT INTO tasks VALUES ('j',?,?,'run',?,?,NULL,'',0,1,1)", (index, state, device, attempt)
            )
        db.execute("INSERT INTO attempts VALUES ('j.0',1,'d1','running',1,0,0,NULL,0,'',1,1,0)")
        db.execute(
            "INSERT INTO devices VALUES ('d1',16777216,'b','i','',1,'p','[4000,4096,100,2000]',"
            "'{\"zone\":\"a\"}','[\"process\"]','strong',10000,'1',0,0,0,0,0,0,1,'')"
        )
        db.execute("INSERT INTO documents VALUES ('d1',1,1)")


def test_what_the_first_version_reserved_is_reserved_and_its_jobs_mean_the_same(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    write_the_first_version(path)
    store = SqliteStore(path)
    store.open()
    try:
        leader, _ = store.lead("c1", 0, 1_000_000)
        snapshot = store.load()
        core = Controller(snapshot, Beginning(0, False, False, 1_000_000), 0, random.Random(1))
        ledger, view = core.ledger, core.ledger.fleet.view
        [attempt] = ledger.attempts.values()
        assert attempt.row.state is AttemptState.RUNNING and attempt.share.resources.gpu_milli == 1_500
        assert ledger.fleet.free_of(0) == Resources(3_500, 4_032, 100, 500, 0, 0, 511)
        assert view.accel_free[0].tolist() == [1_000, 1_000], "nobody knows which of them it uses"
        job = ledger.jobs["j"]
        assert job.row.rules == JobRules() and list(job.ready) == ["j.1"] and not ledger.waiting["j"].waits
        assert view.copies(job.demand, slice(None)).tolist() == [0], "the sum of accelerators still counts"
        [eligible] = [c for w, c in core.placement.requests.demand(job).eligible.items() if "zone" in w]
        assert eligible.tolist() == [True]
        saves = [effect for effect in core._take() if isinstance(effect, Save)]
        for save in saves:
            store.save(list(save.rows), leader.epoch)
        ledger.save(job.row)
        store.save([job.row, attempt.row, ledger.fleet.records[0]], leader.epoch)
        again = store.load()
        assert (again.jobs, again.attempts, again.devices) == (
            snapshot.jobs,
            snapshot.attempts,
            snapshot.devices,
        )
    finally:
        store.close()
