"""The default augmentation for a store, and a note where the student sees more than its teacher did."""

from pipeline.config.stages import TrainConfig


def with_augmentation(config: TrainConfig, num_views: int) -> TrainConfig:
    """Resolve the default of `augment`: a store with views gets no augmentation unless the user asks for it."""
    if num_views > 1 and "augment" not in config.model_fields_set:
        return config.model_copy(update={"augment": "none"})
    return config


def beyond_the_teacher(augment: str, num_views: int) -> str:
    """Describe what the student sees and its teacher did not; "" if nothing.

    Augmentation comes on top of the views: the augmented patch is compared with the embedding of its view.
    """
    if augment == "none":
        return ""
    changes = {"flips": "flips and quarter turns", "flips+jitter": "flips, quarter turns and colour changes"}[augment]
    seen = "the patch as it is" if num_views == 1 else f"{num_views} views of each patch without them"
    return (
        f"the student sees {changes} that the teacher did not: it saw {seen}. Training assumes that the teacher's "
        "embeddings would not change"
    )
