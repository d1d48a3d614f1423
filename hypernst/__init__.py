"""Stylise portraits from Python: `hypernst.load().stylize("me.jpg", "klimt.jpg").save("me-klimt.png")`.

`load` gives a `Studio` (stages/apply/studio.py), whose methods say what they take and give. What a user did wrong is a
`UserError` with one line that says what to do.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing's: nothing is imported here, as an interrupt is not in our hands before `main`
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from pipeline.errors import UserError
    from pipeline.profile import Profile
    from stages.apply.studio import Studio

__all__ = ["Studio", "UserError", "load"]


def load(
    profile: str | Path | Profile = "portable",
    *,
    cache: str | Path | None = "cache",
    run: str | Path = "runs/default",
    device: str = "auto",
    memory: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Studio:
    """A studio that renders with a profile: a name, a .toml file, or a `Profile`; its networks are loaded when needed.

    Portraits are kept in the folder `cache`; None keeps them in memory alone. `run` is the folder of a training, whose
    checkpoint comes before the profile's weights. `memory` is the most bytes that the studio keeps of what it computed
    (default: 512 MiB). `progress(what, done, of)` is told every step before it begins. On Linux the process
    keeps memory that it frees, which saves a fifth of the time.
    Raises: UserError (2) when the profile, the device or the memory is wrong.
    """
    from pathlib import Path

    from pipeline import device as devices
    from pipeline import profile as profiles
    from pipeline.context import Context
    from pipeline.errors import UserError
    from stages.apply.studio import Studio

    if not isinstance(profile, str | Path | profiles.Profile):
        raise UserError(f"profile is {profile!r}; expected a name, a .toml file or a Profile", 2)
    if memory is not None and (isinstance(memory, bool) or not isinstance(memory, int) or memory < 0):
        raise UserError(f"memory is {memory!r}; expected a number of bytes, 0 or more", 2)
    devices.keep_freed_memory()
    made = profiles.load(str(profile)) if isinstance(profile, str | Path) else profile
    ctx = Context(made, cache=Path(cache or "cache"), run=Path(run), device=devices.resolve(device))
    options: dict[str, Any] = {"memory": memory, "progress": progress}
    return Studio(ctx, keep=cache is not None, **{name: value for name, value in options.items() if value is not None})


def __getattr__(name: str) -> Any:
    if name == "Studio":  # for annotations; its module imports torch
        from stages.apply.studio import Studio

        return Studio
    if name == "UserError":
        from pipeline.errors import UserError

        return UserError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
