import io

from rich.console import Console

from ilp_jax import progress


def run(n, terminal=False, clock=lambda: 0.0, done=0, **options):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100)
    with progress.bar("train", total=n, done=done, console=console, clock=clock, **options) as bar:
        for i in range(done, n):
            bar.advance(1, text=f"loss [b] {i}")
        assert bar.done == n
    return out.getvalue()


def test_plain_lines_every_tenth_without_control_characters():
    lines = run(1000).splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("train 100/1000 (10%)")
    assert lines[-1].startswith("train 1000/1000 (100%)")
    assert lines[-1].endswith("loss [b] 999")
    assert "\x1b" not in "".join(lines) and "\r" not in "".join(lines)


def test_slow_loops_say_something_every_half_minute():
    now = iter(range(0, 10_000, 10))
    lines = run(100, clock=lambda: next(now)).splitlines()
    assert len(lines) > 20
    assert "left " in lines[0] and "elapsed " in lines[0]


def test_resumed_loops_begin_at_their_count():
    lines = run(100, done=85).splitlines()
    assert [line.split()[1] for line in lines] == ["95/100", "100/100"]


def test_unfinished_and_empty_loops():
    assert run(0) == ""
    out = io.StringIO()
    console = Console(file=out)
    with progress.bar("load", total=None, console=console) as bar:
        bar.advance(3)
    assert out.getvalue().startswith("load 3  elapsed")


def test_quiet_shows_nothing():
    assert run(100, quiet=True) == ""


def test_terminal_gets_a_bar_and_a_bar_within_it():
    shown = run(50, terminal=True)
    assert "\x1b[" in shown and "50/50" in shown and "loss [b] 49" in shown
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with progress.bar("outer", 2, console=console) as outer:
        with progress.bar("inner", 3, console=console) as inner:
            inner.advance(3)
        outer.advance(2)
    assert "outer" in out.getvalue() and "inner" in out.getvalue()


def test_duration():
    assert progress.duration(3725.4) == "1:02:05"
