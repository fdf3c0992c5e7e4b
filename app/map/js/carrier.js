// Carries data to the page and shows nothing.
export default function ({ data, parentElement }) {
  hold(data);
  (parentElement.host ?? parentElement).style.display = "none";
}
