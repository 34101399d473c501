//! Pictures, video and documents.

use std::path::Path;

use crate::Home;
use crate::server::Server;

fn size(home: &Home, name: &str) -> u64 {
    std::fs::metadata(Path::new(&home.at("project")).join(name)).map_or(0, |found| found.len())
}

#[test]
fn ffmpeg_encodes_video_and_sound() {
    let home = Home::new();
    let script = "casemate ffmpeg -v error -f lavfi -i testsrc=d=1:s=320x240 -f lavfi -i sine=d=1 -c:v libx264 -c:a aac x.mp4
casemate ffmpeg -v error -i x.mp4 -c:v libx265 -x265-params log-level=error -an y.mp4
casemate ffprobe -v error -show_entries stream=codec_name -of csv=p=0 x.mp4 y.mp4 || true
casemate ffprobe -v error -show_entries stream=codec_name -of csv=p=0 x.mp4
casemate ffprobe -v error -show_entries stream=codec_name -of csv=p=0 y.mp4";
    let output = home.script(script).output().succeeds();
    assert!(output.out().ends_with("h264\naac\nhevc\n"), "{}{}", output.out(), output.err());
    // A playlist that leads elsewhere.
    let server = Server::empty();
    home.file("x.txt", format!("ffconcat version 1.0\nfile '{}'\n", server.url("/x.mp4")));
    let words = [
        "ffmpeg",
        "-v",
        "error",
        "-f",
        "concat",
        "-safe",
        "0",
        "-protocol_whitelist",
        "file,http,tcp",
        "-i",
        "x.txt",
        "z.mp4",
    ];
    home.casemate(&words).output();
    assert_eq!(server.connections(), 0);
    home.outside(&words.join(" ")).output();
    assert!(server.connections() > 0);
    let read = "ffmpeg -v error -f data -i ../secret -map 0 -f data -";
    home.keeps_the_secret(read, home.casemate(&read.split(' ').collect::<Vec<_>>()));
}

#[test]
fn imagemagick_converts_pictures() {
    let home = Home::new();
    // A program of this name elsewhere in the path may be another one.
    let script = "run() { casemate run -p imagemagick -- \"$@\"; }
run /usr/bin/convert -size 64x48 gradient:red-blue -fill white -draw 'circle 20,20 30,30' x.png
run /usr/bin/convert x.png -resize 50% y.jpg
casemate identify -format '%m %wx%h' y.jpg";
    let output = home.script(script).output().succeeds();
    assert_eq!(output.out(), "JPEG 32x24", "{}", output.err());
    home.file("thief.txt", "x");
    let read = "/usr/bin/convert -size 400x40 label:$(cat ../secret) info:-";
    let boxed = home.casemate(&["run", "-p", "imagemagick", "--", "sh", "-c", read]);
    home.keeps_the_secret(&format!("cat ../secret; {read}"), boxed);
}

#[test]
fn pdf_files_are_made_looked_at_and_turned_into_text() {
    let home = Home::new();
    let page =
        "%!PS\n/Helvetica findfont 24 scalefont setfont 72 700 moveto (forty-two) show showpage\n";
    home.file("x.ps", page);
    let script = "casemate gs -q -dBATCH -dNOPAUSE -sDEVICE=pdfwrite -o x.pdf x.ps
casemate pdfinfo x.pdf | grep ^Pages; casemate pdftotext x.pdf -; casemate pdftoppm -png x.pdf x; ls x-1.png
casemate ps2pdf x.ps y.pdf; cmp -s y.pdf /dev/null || echo made";
    let output = home.script(script).output().succeeds();
    for words in ["Pages:", "forty-two", "x-1.png", "made"] {
        assert!(output.out().contains(words), "{words}: {}{}", output.out(), output.err());
    }
    home.file("thief.ps", "%!PS\n(../secret) (r) file 100 string readline pop print flush\n");
    let read = "gs -q -dNOSAFER -dBATCH -dNODISPLAY thief.ps";
    home.keeps_the_secret(read, home.casemate(&read.split(' ').collect::<Vec<_>>()));
    let read = "pdftotext ../secret - ; cat ../secret";
    let boxed = home.casemate(&["run", "-p", "pdftotext", "--", "sh", "-c", read]);
    home.keeps_the_secret(read, boxed);
}

#[test]
fn pandoc_converts_and_its_filters_see_nothing_else() {
    let home = Home::new();
    home.file("x.md", "# Title\n\n* *one*\n");
    home.casemate(&["pandoc", "x.md", "-o", "x.html"]).output().succeeds();
    assert!(home.read("x.html").contains("<em>one</em>"));
    home.casemate(&["pandoc", "x.md", "-o", "x.docx"]).output().succeeds();
    assert!(size(&home, "x.docx") > 1000);
    let filter = "function Pandoc(d) local f = io.open('../secret'); if f then io.stdout:write(f:read('a')) end return d end\n";
    home.file("thief.lua", filter);
    let read = "pandoc --lua-filter thief.lua x.md";
    home.keeps_the_secret(read, home.casemate(&read.split(' ').collect::<Vec<_>>()));
}

#[test]
fn libreoffice_converts_without_a_window() {
    let home = Home::new();
    home.file("x.html", "<p>begin</p><p>forty-two</p>");
    let words = ["soffice", "--headless", "--convert-to", "pdf", "x.html"];
    home.casemate(&words).output().succeeds();
    assert!(home.script("casemate pdftotext x.pdf -").text().contains("forty-two"));
    // A document that leads to a file of the home, and into the network.
    let server = Server::empty();
    let link = format!(
        "<p>forty</p><p>begin</p><iframe src='../secret'></iframe><img src='{}'>",
        server.url("/x.png")
    );
    home.file("thief.html", link);
    home.casemate(&["soffice", "--headless", "--convert-to", "pdf", "thief.html"]).output();
    let text = home.script("casemate pdftotext thief.pdf -").text();
    assert!(text.contains("begin") && !text.contains(crate::SECRET), "{text}");
    assert_eq!(server.connections(), 0);
}

#[test]
fn chromium_renders_a_local_page_with_its_own_sandbox_and_no_network() {
    let home = Home::new();
    let server = Server::empty();
    let page = format!(
        "<body><p id=a></p><script>document.getElementById('a').textContent = 6 * 7 + ' rendered'</script><img src='{}'><iframe src='../secret'></iframe>",
        server.url("/x.png")
    );
    let page = home.file("x.html", page);
    let url = format!("file://{page}");
    let words = ["chromium", "--headless", "--disable-gpu", "--dump-dom", &url];
    let output = home.casemate(&words).output().succeeds();
    assert!(output.out().contains("42 rendered"), "{}{}", output.out(), output.err());
    assert_eq!(server.connections(), 0, "{}", output.err());
    let print = "--print-to-pdf=x.pdf";
    home.casemate(&["chromium", "--headless", "--disable-gpu", print, &url]).output().succeeds();
    let text = home.script("casemate pdftotext x.pdf -").text();
    assert!(text.contains("42 rendered") && !text.contains(crate::SECRET), "{text}");
    let secret = format!("file://{}", home.at("secret"));
    let words = ["chromium", "--headless", "--disable-gpu", "--dump-dom", &secret];
    home.keeps_the_secret(&words.join(" "), home.casemate(&words));
    home.outside(&format!("chromium --headless --disable-gpu --dump-dom {url}")).output();
    assert!(server.connections() > 0, "the control reaches the server");
}
