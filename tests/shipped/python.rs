//! Packages of Python.

use crate::{Home, SECRET};

/// Makes a wheel without any other package: it is a zip file.
const WHEEL: &str = "import zipfile
def wheel(name, directory='.', **files):
    path = f'{name}-1.0-py3-none-any.whl'
    info = f'{name}-1.0.dist-info/'
    with zipfile.ZipFile(f'{directory}/{path}', 'w') as z:
        z.writestr(info + 'METADATA', f'Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n')
        z.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
        z.writestr(info + 'entry_points.txt', f'[console_scripts]\\n{name} = {name}:main\\n')
        z.writestr(info + 'RECORD', '')
        z.writestr(f'{name}.py', 'def main(): print(6 * 7)\\nvalue = 7\\n')
    return path
";

#[test]
fn pip_installs_a_wheel_and_builds_a_source_package() {
    let home = Home::new();
    home.file("make.py", format!("{WHEEL}wheel('demo')\n"));
    // A package that builds itself, and looks around.
    let backend = format!(
        "{WHEEL}
import os
def get_requires_for_build_wheel(settings=None): return []
def build_wheel(directory, settings=None, metadata=None):
    try: seen = open(os.path.expanduser('~/secret')).read()
    except OSError as e: seen = str(e)
    open(os.environ['VIRTUAL_ENV'] + '/seen', 'w').write(seen)
    return wheel('source', directory)
"
    );
    home.file("source/backend.py", backend);
    let project = "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n[project]\nname = \"source\"\nversion = \"1.0\"\n";
    home.file("source/pyproject.toml", project);
    let script = "casemate python3 make.py
casemate python3 -m venv v
export VIRTUAL_ENV=$PWD/v PATH=$PWD/v/bin:$PATH
casemate pip install --no-index ./demo-1.0-py3-none-any.whl ./source
casemate run -p python -- demo
casemate python -c 'import source; print(source.value)'";
    let output = home.script(script).output().succeeds();
    assert!(output.out().ends_with("42\n7\n"), "{}", output.out());
    assert!(home.read("v/seen").contains("No such file"), "{}", home.read("v/seen"));
    // The same package outside finds it.
    let control =
        "export VIRTUAL_ENV=$PWD/v; v/bin/pip install --no-index --force-reinstall ./source";
    home.outside(control).output().succeeds();
    assert_eq!(home.read("v/seen"), SECRET);
}
