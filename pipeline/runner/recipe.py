"""Compares the recipes of rows: the stage, version, parameters, weights and columns that they were computed with."""

from typing import Any

from pipeline.runner.spec import StageSpec


def change(provenance: dict[str, Any], stage: StageSpec) -> str:
    """How the recipe of a file differs from that of the stage; "" if they are equal, weights taken by their content."""
    recipe = stage.recipe()
    former = {name: provenance.get(name) for name in recipe}
    return "" if _nameless(former) == _nameless(recipe) else difference(former, recipe)


def differs_in_fallback(provenance: dict[str, Any], stage: StageSpec) -> bool:
    """Whether the recipe of a file is that of the stage but for the parameter of its fallback."""
    params = provenance.get("params")
    if stage.fallback is None or not isinstance(params, dict):
        return False
    same = {**params, stage.fallback.param: stage.params[stage.fallback.param]}
    return same != params and not change({**provenance, "params": same}, stage)


def _nameless(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with the content of weights in place of their names."""
    weights = recipe["weights"]
    if not isinstance(weights, dict):
        return recipe

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(inner) for name, inner in value.items()}
        return weights.get(value, value) if isinstance(value, str) else value

    return {**recipe, "params": plain(recipe["params"]), "weights": sorted(map(str, weights.values()))}


def difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> str:
    """The settings that differ, such as `params.patches 8 -> 4`; "" if none differ."""
    out = []
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            out.append(difference(a, b, f"{prefix}{name}."))
        elif a != b:
            out.append(f"{prefix}{name} {_brief(a)} -> {_brief(b)}")
    return ", ".join(filter(None, out))


def _brief(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text[:12] + "…" if len(text) > 40 else text
