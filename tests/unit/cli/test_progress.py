import threading

from coreimage.cli.console import RichProgress


def test_tasks_of_several_threads_share_the_terminal() -> None:
    progress = RichProgress()
    both = threading.Barrier(2)
    faults: list[BaseException] = []

    def work(unit: str) -> None:
        try:
            with progress.task("work", 3, unit=unit) as task:
                both.wait(10)
                task.advance(3)
                both.wait(10)
        except BaseException as error:  # noqa: BLE001  told below
            faults.append(error)

    threads = [threading.Thread(target=work, args=(unit,)) for unit in ("bytes", "steps")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    with progress.task("unknown length", None) as task:
        task.advance(1)
