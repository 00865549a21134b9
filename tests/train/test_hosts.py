"""Two real processes: they find each other, agree or say in what they differ, and decide alike."""

import concurrent.futures
import json
import socket
import time
import types

import jax
import numpy as np
import pytest

from guardjax.train import hosts, join, sharding
from guardjax.train.cluster import Processes, find_cluster
from guardjax.train.join import Join, JoinError
from guardjax.train.roll_call import RollCallError, roll_call
from tests.train.processes import free_port, run_all


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    address = f"127.0.0.1:{free_port()}"
    ended = run_all([["-m", "tests.train.two_hosts", address, str(i)] for i in range(2)],
                    tmp_path_factory.mktemp("two"), limit=240)
    assert [each.status for each in ended] == [0, 0], [each.output[-3000:] for each in ended]
    return [json.loads(each.output.strip().splitlines()[-1]) for each in ended]


def test_two_processes_tell_each_other_all_that_they_must(told):
    assert [each["first"] for each in told] == [True, False]
    assert [each["devices"] for each in told] == [8, 8]
    assert [each["texts"] for each in told] == [["", "é"]] * 2
    assert [each["together"] for each in told] == [0, 1]
    assert [each["votes"] for each in told] == [[None, None, 15]] * 2, "one step later, both"


def test_who_differs_is_named_on_both(told):
    for each in told:
        assert "base: process 0 has b0, process 1 b1; copy the same model" in each["disagree"]
        assert "config" not in each["disagree"]


def test_a_failure_of_one_stops_the_other_with_its_words(told):
    assert told[0]["failed"] == ["PeerError", "process 1: ValueError: no such file on this host"]
    assert told[1]["failed"] == ["ValueError", "no such file on this host"]


def test_rows_and_arrays_are_whole_again_bit_for_bit(told):
    assert [each["rows"] for each in told] == [[0, 8], [8, 16]]
    assert all(each["exact"] and each["batch"] for each in told)
    whole = np.random.default_rng(0).normal(size=(16, 3))[:8].astype(np.float32).repeat(64, 1)
    assert [each["shard"] for each in told] == [[8, 48]] * 2
    assert told[0]["kept"] == float(np.abs(whole).sum()) and told[1]["kept"] is None
    key = jax.random.fold_in(jax.random.key(3), 1)
    assert {each["key"] for each in told} == {int(jax.random.randint(key, (), 0, 1000))}


def reported(count, callers, seconds=2.0):
    """What each caller (its number, how many it expects) of a roll call is told; "" is all well."""
    address = f"127.0.0.1:{free_port()}"

    def call(caller):
        try:
            roll_call(address, caller[1], caller[0], seconds)
        except RollCallError as error:
            return str(error)
        return ""

    with concurrent.futures.ThreadPoolExecutor(len(callers)) as pool:
        return list(pool.map(call, callers))


def test_all_are_let_go_when_all_are_there():
    assert reported(3, [(2, 3), (0, 3), (1, 3)], seconds=30) == ["", "", ""]


def test_the_missing_are_named_to_those_that_came():
    said = reported(4, [(0, 4), (2, 4)])
    assert said[0] == said[1]
    assert said[0].startswith("processes 1, 3 of 4 did not start within 2 s")


def test_a_number_that_came_twice_or_another_count_is_refused():
    assert any("two processes were started with --process-id 1" in text
               for text in reported(3, [(0, 3), (1, 3), (1, 3)]))
    assert any("--num-processes 3, and process 0 with 2" in text
               for text in reported(2, [(0, 2), (1, 3)]))


def test_without_process_0_the_address_is_named():
    (said,) = reported(2, [(1, 2)], seconds=0.5)
    assert "no answer from process 0 at 127.0.0.1:" in said


def test_a_stranger_at_the_port_is_no_process():
    address = f"127.0.0.1:{free_port()}"
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(roll_call, address, 2, 0, 30)
        for _ in range(200):
            try:
                with socket.create_connection(("127.0.0.1", int(address.split(":")[1]))) as knock:
                    knock.sendall(b"GET / HTTP/1.1\r\n")
                break
            except OSError:
                time.sleep(0.01)
        pool.submit(roll_call, address, 2, 1, 30).result(timeout=60)
        assert first.result(timeout=60) is None


@pytest.mark.parametrize("given, problem", [
    ({"coordinator": "a:1"}, "--num-processes and --process-id must be given too"),
    ({"process_id": 0}, "--coordinator and --num-processes must be given too"),
    ({"coordinator": "a", "num_processes": 2, "process_id": 0}, "'a' is not HOST:PORT"),
    ({"coordinator": "a:1", "num_processes": 2, "process_id": 2}, "2 is not from 0 to 1"),
    ({"coordinator": "a:1", "num_processes": 2, "process_id": 1, "distributed": "off"},
     "contradict"),
])
def test_half_an_address_is_refused(given, problem):
    with pytest.raises(JoinError, match=problem):
        Join(**given)


@pytest.mark.parametrize("environment", [
    {"SLURM_NTASKS": "4", "SLURM_PROCID": "1"},
    {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"},
    {"TPU_WORKER_HOSTNAMES": "a,b,c,d"},
])
def test_one_of_several_that_says_nothing_is_refused(environment, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(JoinError, match="one of 4 processes"), join.joined(Join()):
        pass
    with join.joined(Join(distributed="off")):
        assert hosts.num_processes() == 1


@pytest.fixture(name="slurm")
def _slurm(monkeypatch):
    """`slurm(process)` makes the environment that of one of three; returns process 0's address."""
    monkeypatch.setattr(join, "_configure", lambda: None)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: pytest.fail("JAX waits"))
    port = free_port()

    def be(process):
        for name, value in {
                "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "localhost,node[1-2]",
                "SLURM_NTASKS": "3", "SLURM_PROCID": str(process), "SLURM_LOCALID": "0",
                "JAX_COORDINATOR_PORT": str(port)}.items():
            monkeypatch.setenv(name, value)
        return f"localhost:{port}"
    return be


def test_auto_finds_what_jax_itself_would(slurm, monkeypatch):
    address = slurm(2)
    assert find_cluster(1) == Processes(address, 3, 2, (0,))
    monkeypatch.delenv("JAX_COORDINATOR_PORT")
    assert find_cluster(1).address == f"localhost:{65535 - 2**12 + 1 + 7}"
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "other:1")
    monkeypatch.setenv("JAX_LOCAL_DEVICE_IDS", "2,3")
    assert find_cluster(1) == Processes("other:1", 3, 2, (2, 3))


def test_auto_names_the_processes_that_never_come(slurm):
    address = slurm(0)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        other = pool.submit(lambda: roll_call(address, 3, 2, 30))
        with (pytest.raises(RollCallError, match=(
                f"auto found 3 processes, of which this is number 0, and number 0 at {address}: "
                "process 1 of 3 did not start within 2 s: .*give --coordinator")),
              join.joined(Join(distributed="auto", seconds=2))):
            pass
        with pytest.raises(RollCallError, match="process 1 of 3 did not start within 2 s"):
            other.result(timeout=60)


def test_auto_without_process_0_says_where_it_was_looked_for(slurm):
    address = slurm(1)
    with (pytest.raises(RollCallError, match=f"this is number 1.*no answer .* at {address}"),
          join.joined(Join(distributed="auto", seconds=1))):
        pass


def test_auto_lets_all_that_come_go_to_jax(slurm, monkeypatch):
    address, given = slurm(0), []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *found, **_: given.append(found))
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: None)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        others = [pool.submit(roll_call, address, 3, number, 30) for number in (1, 2)]
        with join.joined(Join(distributed="auto", seconds=30)):
            assert given == [(address, 3, 0, (0,))]
        for other in others:
            other.result(timeout=60)


def test_auto_without_a_cluster_says_what_it_knows(monkeypatch):
    monkeypatch.setattr(join, "_configure", lambda: None)
    with (pytest.raises(JoinError, match="finds no cluster here .*--coordinator"),
          join.joined(Join(distributed="auto"))):
        pass


def test_auto_in_a_cluster_that_says_too_little_says_what(slurm, monkeypatch):
    slurm(0)
    monkeypatch.setenv("SLURM_NTASKS", "many")
    with (pytest.raises(JoinError, match="does not say which processes there are: .*'many'.*Give"),
          join.joined(Join(distributed="auto"))):
        pass


def fake_mesh(processes, **shape):
    """A mesh of which only process numbers and sizes are looked at."""
    devices = np.array([types.SimpleNamespace(process_index=p) for p in processes])
    return types.SimpleNamespace(devices=devices.reshape(*shape.values()), shape=shape)


def test_rows_follow_the_devices_of_a_process():
    mesh = fake_mesh([1, 1, 0, 0], data=2, fsdp=2, tensor=1)
    assert sharding.own_rows(8, mesh) == slice(4, 8)
    across = fake_mesh([0, 1, 0, 1], data=1, fsdp=2, tensor=2)
    assert sharding.own_rows(8, across) == slice(0, 8), "tensor goes across: all have all rows"
    with pytest.raises(ValueError, match=r"parts \[0, 2\] of a batch lie on process 0"):
        sharding.own_rows(8, fake_mesh([0, 1, 0, 1], data=4, fsdp=1, tensor=1))


def test_a_pair_that_lies_on_two_processes_is_refused():
    mesh = fake_mesh([0, 1], data=2, fsdp=1, tensor=1)
    sharding.check_pairs(4, mesh)
    with pytest.raises(ValueError, match="gives each process 1 prompts.*use a batch of 4"):
        sharding.check_pairs(2, mesh)


def test_one_device_for_several_processes_is_refused(monkeypatch):
    from guardjax.train.config import MeshConfig

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="2 processes would train for themselves"):
        sharding.mesh_sizes(MeshConfig(), 8)
