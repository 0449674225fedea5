"""What `up` says at its end."""

from __future__ import annotations

from pathlib import Path

from deployer.flow.summary import of_another_app


def test_another_app_than_the_stacks_is_told(tmp_path: Path) -> None:
    (tmp_path / "stack.yaml").write_text("name: agora\ndomain: social.test\napp: matrix\n", encoding="utf-8")
    assert of_another_app(tmp_path, None) == of_another_app(tmp_path, "matrix") == []
    [note] = of_another_app(tmp_path, "bluesky")
    assert note.startswith("stack.yaml says app: matrix") and "write app: bluesky there" in note
