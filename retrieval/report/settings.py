"""Settings of the report."""

from pydantic import Field

from retrieval.core.settings import Settings


class ReportSettings(Settings):
    """What the report shows besides figures.

    users: test users that are shown with history, interests and list, spread evenly. top: items of their lists.
    map_items: items drawn at random for the t-SNE picture, 0 for none; its time grows a little faster than them.
    seed: of the draw and the projection. The largest values keep the page below 8 MB whatever titles say.
    """

    users: int = Field(default=3, ge=0, le=10)
    top: int = Field(default=10, ge=1, le=50)
    map_items: int = Field(default=1000, ge=0, le=5_000)
    seed: int = Field(default=0, ge=0)
