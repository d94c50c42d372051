from medseg.workflows.processes import first_node, join_slurm

STEP = {
    "SLURM_JOB_ID": "1234567",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}


def test_a_task_of_srun_joins_the_others() -> None:
    assert join_slurm(STEP) == {
        "RANK": "5",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "8",
        "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "gpu07",
        "MASTER_PORT": str(20_000 + 1234567 % 20_000),
    }


def test_all_tasks_of_a_job_find_the_same_place() -> None:
    others = [join_slurm(STEP | {"SLURM_PROCID": str(n), "SLURM_LOCALID": "0"}) for n in range(8)]
    assert len({(o["MASTER_ADDR"], o["MASTER_PORT"]) for o in others}) == 1
    assert {o["RANK"] for o in others} == set("01234567")


def test_a_batch_script_is_one_process_however_many_tasks_it_was_given() -> None:
    batch = {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    assert join_slurm(batch) == {}
    assert join_slurm(batch | {"SLURM_STEP_ID": "batch"}) == {}


def test_one_task_and_processes_of_torchrun_are_left_alone() -> None:
    assert join_slurm(STEP | {"SLURM_STEP_NUM_TASKS": "1"}) == {}
    assert join_slurm(STEP | {"RANK": "0"}) == {}
    assert join_slurm({}) == {}


def test_an_older_slurm_and_a_given_address_are_heeded() -> None:
    older = {k: v for k, v in STEP.items() if not k.startswith("SLURM_STEP_N")}
    older |= {"SLURM_NTASKS": "8", "SLURM_NODELIST": "a1,b2", "MASTER_PORT": "29500"}
    found = join_slurm(older)
    assert (found["WORLD_SIZE"], found["MASTER_ADDR"], found["MASTER_PORT"]) == ("8", "a1", "29500")


def test_the_first_node_of_a_list() -> None:
    lists = ["n1", "n[1-4]", "n[003,7]", "rack-a[2],b1", ""]
    assert [first_node(text) for text in lists] == ["n1", "n1", "n003", "rack-a2", "localhost"]
