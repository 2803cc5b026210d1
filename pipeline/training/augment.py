"""What a student sees beside what its teacher saw: the choice of augmentation, and words where the two differ."""

from pipeline.config.stages import TrainConfig


def with_augmentation(config: TrainConfig, num_views: int) -> TrainConfig:
    """The options with the augmentation that is used: beside views there is none unless it is asked for."""
    if num_views > 1 and "augment" not in config.model_fields_set:
        return config.model_copy(update={"augment": "none"})
    return config


def beyond_the_teacher(augment: str, num_views: int) -> str:
    """What the student is shown that its teacher was not, in words; "" for nothing.

    Flips and jitter of a run are drawn anew, whatever the views: a row under both is compared with the embedding of
    the view alone.
    """
    if augment == "none":
        return ""
    what = {"flips": "flips and quarter turns", "flips+jitter": "flips, quarter turns and colour changes"}[augment]
    seen = "the patch as it is" if num_views == 1 else f"{num_views} views of a patch, but not these on top of them"
    return (f"the student sees {what} that no embedding was made of: the teacher saw {seen}. Its embeddings are taken "
            "to stay the same under them")  # fmt: skip
