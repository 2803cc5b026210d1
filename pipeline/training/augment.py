"""What the student sees by augmentation and its teacher did not."""


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
