"""The built-in tasks, each made from data that an installed package contains."""
