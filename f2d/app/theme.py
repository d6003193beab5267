"""The look of the page: system fonts, so that nothing is fetched, and colours with sufficient contrast."""

import gradio as gr

WIDTH = 1180  # pixels at most: two columns

CSS = f"""
.gradio-container {{ max-width: {WIDTH}px !important; margin: 0 auto !important; }}
.gradio-container h1 {{ margin: 0.6rem 0 0.1rem; font-size: 1.55rem; line-height: 1.25; font-weight: 650; }}
.gradio-container .html-container {{ padding: 0 !important; }}
.gradio-container button {{ overflow-wrap: anywhere; }}
.gradio-container a {{ text-decoration: underline; }}
:focus-visible {{ outline: 2px solid var(--color-accent) !important; outline-offset: 2px; }}
@media (max-width: 640px) {{ .gradio-container {{ padding: 0 10px 10px !important; }} }}
"""


def theme() -> gr.themes.Base:
    """Blue on greys, light and dark by the browser's setting; gradio's defaults miss 4.5:1 for labels and buttons."""
    fonts = ("system-ui", "sans-serif")
    mono = ("ui-monospace", "monospace")
    return gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=fonts, font_mono=mono).set(
        body_background_fill="*neutral_50",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        button_primary_text_color="white",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
        slider_color="*primary_600",
        slider_color_dark="*primary_500",
    )
