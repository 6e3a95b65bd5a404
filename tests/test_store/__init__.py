"""How contents get into the repository."""
