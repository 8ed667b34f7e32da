"""A secret planted in the environment, and used by a recipe, appears nowhere."""

from pathlib import Path

SECRET = "pl4nted-Se'cr<e>t"


def test_a_planted_secret_is_nowhere(command, recipe: Path, tmp_path: Path) -> None:
    workspace, own = tmp_path / "w", tmp_path / "own.toml"
    secret_log = tmp_path / SECRET
    assert command("prepare", workspace).returncode == 0
    (generated,) = (workspace / "generated").iterdir()
    generated.rename(secret_log)
    text = recipe.read_text()
    cut = text.index("[generate]"), text.index("[data]")
    text = text[: cut[0]] + text[cut[1] :]
    own.write_text(
        text.replace("generated/", f"{tmp_path}/${{SHOP_ACCESS_TOKEN}}/").replace("steps = 40", "steps = 4")
        + "[nightly.model]\nmax_cosine = 1.0\n"
    )
    night = ("--date", "2024-01-20", "--set", "split.protocol=global-time")
    said = [command("nightly", workspace, *night, of=own, SHOP_ACCESS_TOKEN=SECRET)]
    assert said[0].returncode == 0, said[0].stderr
    said += [command(verb, workspace, "--json", of=own, SHOP_ACCESS_TOKEN=SECRET) for verb in ("status", "history")]
    said.append(command("run", workspace, of=own, SHOP_ACCESS_TOKEN=SECRET))
    assert said[-1].returncode == 0, said[-1].stderr
    secret_log.rename(tmp_path / "gone")
    failed = command("run", workspace, of=own, debug=True, SHOP_ACCESS_TOKEN=SECRET)
    assert failed.returncode == 2
    assert "Traceback" in failed.stderr
    assert "***" in failed.stderr
    for each in [*said, failed]:
        assert "pl4nted" not in each.stdout + each.stderr
    files = [path for path in workspace.rglob("*") if path.is_file()]
    assert len(files) > 30
    assert [str(path) for path in files if b"pl4nted" in path.read_bytes() or "pl4nted" in path.name] == []
