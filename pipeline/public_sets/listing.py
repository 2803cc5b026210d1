"""What `g2l reproduce --list` shows; without torch. Pure."""

from pipeline.public_sets.recipe import SetRecipe, left_out_sets, set_recipes
from pipeline.public_sets.whole import PublishedCounts


def list_sets() -> str:
    """Each set, its terms and how it is got; and the sets that are not read, and why."""
    blocks: dict[str, list[str]] = {}
    for recipe in sorted(set_recipes().values(), key=lambda each: (each.variant_of or each.name, each.variant_of)):
        if recipe.variant_of:
            blocks[recipe.variant_of].append(f"  or {recipe.name}: {recipe.title}")
        else:
            blocks[recipe.name] = [f"{recipe.name}: {recipe.title}", *_details(recipe)]
    others = [f"  {name}: {why}" for name, why in left_out_sets().items()]
    return "\n\n".join("\n".join(lines) for lines in (*blocks.values(), ["known, and not read:", *others]))


def _details(recipe: SetRecipe) -> list[str]:
    """All but the name and title, indented."""
    metrics = "; ".join(metric.name for metric in recipe.metrics)
    lines = [recipe.about, f"terms: {recipe.terms}", f"from: {recipe.url}", f"--root: {recipe.how}"]
    lines += [f"whole: {_size(recipe.counts)}", f"compared by: {metrics}", f"cite: {recipe.citation}"]
    return [f"  {line}".replace("\n", "\n    ") for line in lines]


def _size(counts: PublishedCounts | None) -> str:
    """How many members make the whole set, and who says so."""
    if counts is None:
        return "how many members there are is not known here, and not checked"
    number = counts.total if counts.total is not None else next(iter(counts.distinct.values()))
    return f"{number:,} {counts.of} ({counts.source})"
