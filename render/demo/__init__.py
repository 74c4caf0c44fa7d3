"""Forms beside the page, by Gradio: films of scripts and scenes from pictures, by the same server."""
