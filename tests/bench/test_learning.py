"""The learning curve of the shipped weights."""

from bench.learning import curve, main


def test_a_line_per_run_through_its_validations():
    rows = [{"run": run, "core_hours": str(h), "gain": str(2 * h)} for run in ("first", "second") for h in (0.5, 1.0)]
    lines = curve(rows).axes[0].lines
    assert [line.get_label() for line in lines] == ["first", "second"]
    assert all(line.get_xydata().tolist() == [[0.5, 1.0], [1.0, 2.0]] for line in lines)


def test_the_curve_of_the_shipped_weights_is_drawn(tmp_path):
    main(["bench/results/learning-f2d-lite.csv", "-o", str(tmp_path / "new" / "curve.png")])
    assert (tmp_path / "new" / "curve.png").read_bytes().startswith(b"\x89PNG")
