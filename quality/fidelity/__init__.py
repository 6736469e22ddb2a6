"""Do synthetic images look like real ones, and like all of them: distances, neighbourhoods, and how sure they are."""
