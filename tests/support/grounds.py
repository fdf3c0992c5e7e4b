"""What colour a page is, light and dark: Streamlit's own; tests/browser/test_everybody.py looks whether they still are."""

GROUNDS = {"light": "#FFFFFF", "dark": "#171614"}
